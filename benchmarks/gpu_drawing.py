"""Drawing with the architecture of Stable Diffusion 1.5: `sample` against diffusers' `StableDiffusionPipeline`.

Guidance is 7.5; a batch of images is drawn at once. The duration of a step is the median time between two calls of the
UNet, with few steps; the rest (text encoder, VAE, conversion) does not depend on the number of steps. `batch_seconds`
of 50 DDIM steps and of 20 DPM-Solver++ steps are computed from both. With 16 bits, `sample` decodes in fp32, image by
image, as after `open_base`; diffusers' pipeline decodes in 16 bits, as its users do. In fp32, convolutions may use TF32
(PyTorch's default). `limit_gb` simulates a card with less memory.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from benchmarks.gpu_card import DEVICE, Steps, free_memory, memory_limit, peak_memory, synchronise
from benchmarks.gpu_finetune import DTYPES
from benchmarks.gpu_shapes import PROMPTS, Size, build_pipeline
from inandout.diffusion.pipeline import Pipeline
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.sampler import sample

STEPS = {"ddim": 50, "dpm++": 20}
WAYS = ("bare", "ours", "ours, contiguous")
"""The last one keeps the UNet in PyTorch's default layout, as diffusers does; the package uses channels-last."""
GUIDANCE = 7.5


def draw(
    size: Size, way: str, precision: str, scheduler: str, *, xl: bool = False, limit_gb: int = 0
) -> dict[str, Any]:
    """Return seconds per step and per batch, images per second, and peak memory."""
    free_memory()
    with memory_limit(limit_gb):
        return _draw(replace(size, side=size.xl_side) if xl else size, way, precision, scheduler, xl)


def _draw(size: Size, way: str, precision: str, scheduler: str, xl: bool) -> dict[str, Any]:
    vae_precision = precision if way == "bare" else "fp32"
    pipeline = build_pipeline(size, DTYPES[precision], DTYPES[vae_precision], xl)
    pipeline.vae.enable_slicing()
    free_memory()
    if way != "ours":
        pipeline.unet.to(memory_format=torch.contiguous_format)
    draw_batch = (_bare if way == "bare" else _ours)(pipeline, size, scheduler)
    draw_batch(2)
    synchronise()
    started, steps = time.perf_counter(), Steps(warm_up=1)
    pipeline.unet.register_forward_pre_hook(lambda *_: steps())
    draw_batch(size.denoising)
    synchronise()
    step = 1 / steps.result()["per_second"]
    rest = max(time.perf_counter() - started - size.denoising * step, 0.0)
    batch = rest + STEPS[scheduler] * step
    result = {"per_second": size.drawn / batch, "step_seconds": step, "rest_seconds": rest, "batch_seconds": batch}
    return {name: round(value, 4) for name, value in result.items()} | {"batch": size.drawn} | peak_memory()


def _ours(pipeline: Pipeline, size: Size, scheduler: str) -> Callable[[int], None]:
    def draw_batch(steps: int) -> None:
        config = SamplingConfig(steps=steps, scheduler=scheduler, guidance=GUIDANCE, sample_batch=size.drawn)
        prompts, seeds = [PROMPTS[0]] * size.drawn, range(size.drawn)
        batches = list(sample(pipeline, prompts, seeds, width=size.side, height=size.side, config=config))
        assert batches[0].images.shape == (size.drawn, size.side, size.side, 3)

    return draw_batch


def _bare(pipeline: Pipeline, size: Size, scheduler: str) -> Callable[[int], None]:
    pipeline.vae.to(memory_format=torch.contiguous_format)
    solver = DDIMScheduler if scheduler == "ddim" else DPMSolverMultistepScheduler
    pipeline.scheduler = solver.from_config(pipeline.scheduler.config)
    generators = [torch.Generator(DEVICE) for _ in range(size.drawn)]

    def draw_batch(steps: int) -> None:
        images = pipeline(
            [PROMPTS[0]] * size.drawn, height=size.side, width=size.side, num_inference_steps=steps,
            guidance_scale=GUIDANCE, generator=generators,
        ).images  # fmt: skip
        assert len(images) == size.drawn

    return draw_batch
