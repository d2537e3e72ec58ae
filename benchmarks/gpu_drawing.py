"""Drawing in Stable Diffusion 1.5's shape: `sample` against diffusers' `StableDiffusionPipeline`.

Guidance of 7.5, a batch of images at once. A step is the median time from one call of the UNet to the next in a drawing
of few steps; the rest (text encoder, VAE, conversion) is the same for any number of steps. `batch_seconds` of 50 steps
of DDIM and of 20 of DPM-Solver++ are reckoned from both. `sample` has no setting of precision yet: in 16 bits it gets a
pipeline that was cast, with its VAE, as diffusers' users do. In fp32, convolutions may use TF32: PyTorch's default.
"""

import time
from collections.abc import Callable

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline

from benchmarks.gpu_card import DEVICE, Steps, free_memory, peak_memory, synchronise
from benchmarks.gpu_finetune import DTYPES
from benchmarks.gpu_shapes import PROMPTS, Size, build_pipeline
from inandout.diffusion.sampling import SamplingConfig, sample

STEPS = {"ddim": 50, "dpm++": 20}
GUIDANCE = 7.5


def draw(size: Size, way: str, precision: str, scheduler: str) -> dict[str, object]:
    """Seconds of a step and of a batch, images a second, and peak memory."""
    free_memory()
    pipeline = build_pipeline(size, DTYPES[precision], DTYPES[precision])
    free_memory()
    drawing = (_ours if way == "ours" else _bare)(pipeline, size, scheduler)
    drawing(2)
    synchronise()
    started, steps = time.perf_counter(), Steps(warm_up=1)
    pipeline.unet.register_forward_pre_hook(lambda *_: steps())
    drawing(size.denoising)
    synchronise()
    step = 1 / steps.result()["per_second"]
    rest = max(time.perf_counter() - started - size.denoising * step, 0.0)
    batch = rest + STEPS[scheduler] * step
    told = {"per_second": size.drawn / batch, "step_seconds": step, "rest_seconds": rest, "batch_seconds": batch}
    return {name: round(value, 4) for name, value in told.items()} | {"batch": size.drawn} | peak_memory()


def _ours(pipeline: StableDiffusionPipeline, size: Size, scheduler: str) -> Callable[[int], None]:
    def drawing(steps: int) -> None:
        config = SamplingConfig(steps=steps, scheduler=scheduler, guidance=GUIDANCE, sample_batch=size.drawn)
        prompts, seeds = [PROMPTS[0]] * size.drawn, range(size.drawn)
        made = list(sample(pipeline, prompts, seeds, width=size.side, height=size.side, config=config))
        assert made[0].pictures.shape == (size.drawn, size.side, size.side, 3)

    return drawing


def _bare(pipeline: StableDiffusionPipeline, size: Size, scheduler: str) -> Callable[[int], None]:
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.contiguous_format)
    solver = DDIMScheduler if scheduler == "ddim" else DPMSolverMultistepScheduler
    pipeline.scheduler = solver.from_config(pipeline.scheduler.config)
    generators = [torch.Generator(DEVICE) for _ in range(size.drawn)]

    def drawing(steps: int) -> None:
        images = pipeline(
            [PROMPTS[0]] * size.drawn, height=size.side, width=size.side, num_inference_steps=steps,
            guidance_scale=GUIDANCE, generator=generators,
        ).images  # fmt: skip
        assert len(images) == size.drawn

    return drawing
