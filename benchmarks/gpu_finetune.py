"""Fine-tuning with the architecture of Stable Diffusion 1.5: `dreambooth` against a loop like diffusers' example.

The bare loop works like `train_dreambooth_lora.py` of diffusers with a trained text encoder and prior preservation:
frozen weights are in 16 bits under autocast; every step opens, resizes and crops the image files of the batch, encodes
them with the VAE, and encodes the prompt of every image. It has no worker processes, PyTorch's default memory layout,
the UNet in training mode, and AdamW of PyTorch or bitsandbytes. `dreambooth` gets images that were encoded once with a
VAE in fp32, as in `finetune`. Adapter (LoRA-C3Lier), images, prompts, loss and batch are the same. Peak memory includes
the encoding.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from transformers import CLIPTextModel

from benchmarks.finetune_speed import bare_images, our_images
from benchmarks.gpu_card import DEVICE, Steps, free_memory, memory_limit, peak_memory, why_no_8bit
from benchmarks.gpu_shapes import PROMPTS, Size, build_pipeline, image_files
from inandout.diffusion.base.base import Base
from inandout.diffusion.finetune.config import DreamBoothConfig, Optimiser
from inandout.diffusion.finetune.dreambooth import MAX_GRADIENT_NORM, build_optimiser, dreambooth
from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, Example
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import adapter_parameters, add_adapter
from inandout.diffusion.pipeline import Pipeline
from inandout.diffusion.snr_weighting import min_snr_weights
from inandout.diffusion.vae import encode

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LR = 1e-4


def ours(
    size: Size,
    work: Path,
    precision: str,
    optimiser: Optimiser,
    batch: int,
    *,
    micro_batch: int = 0,
    xl: bool = False,
    checkpointing: bool = False,
    limit_gb: int = 0,
) -> dict[str, Any]:
    """Return steps per second and peak memory of `dreambooth`; `limit_gb` simulates a card with less memory."""
    if optimiser == "adamw8bit" and (reason := why_no_8bit()):
        return {"not_available": reason}
    free_memory()
    config = DreamBoothConfig(
        batch_size=batch, micro_batch=micro_batch, optimiser=optimiser, gradient_checkpointing=checkpointing
    )
    with memory_limit(limit_gb):
        return _ours(size, work, precision, config, xl)


def _ours(size: Size, work: Path, precision: str, config: DreamBoothConfig, xl: bool) -> dict[str, Any]:
    base = Base(build_pipeline(size, DTYPES[precision], torch.float32, xl), "0" * 32, "sdxl" if xl else "sd")
    batch, side = config.batch_size, size.xl_side if xl else size.side
    free_memory()  # exclude the construction from the peak
    if not hasattr(CLIPTextModel, "activation_checkpointing_enable"):  # its name before transformers 5.23
        CLIPTextModel.activation_checkpointing_enable = CLIPTextModel.gradient_checkpointing_enable
    add_adapter(base.pipeline, AdapterConfig(), 0)
    images = our_images(image_files(work, size, max(batch, 2)), side, side)
    latents = [encode(base.pipeline.vae, image[None])[0].cpu() for image in images]
    examples = [Example(latent, prior=index >= len(images) // 2) for index, latent in enumerate(latents)]
    repeats = -(-(size.warm_up + size.timed) * batch // len(images))
    config = config.model_copy(update={"repeats": repeats})
    steps = Steps(size.warm_up)
    AcceleratorState._reset_state(reset_partial_state=True)  # it keeps the precision of the previous training
    dataset = DreamBoothDataset(examples, *PROMPTS)
    dreambooth(base, dataset, epochs=1, lr=LR, config=config, seed=0, on_step=lambda *_: steps())
    return steps.result() | {"batch": batch, "micro_batch": config.micro_batch or batch} | peak_memory()


def bare(size: Size, work: Path, precision: str, optimiser: Optimiser, batch: int) -> dict[str, Any]:
    """Return steps per second and peak memory of the bare loop."""
    if optimiser == "adamw8bit" and (reason := why_no_8bit()):
        return {"not_available": reason}
    free_memory()
    pipeline = build_pipeline(size, DTYPES[precision], DTYPES[precision])
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.contiguous_format)
    free_memory()
    step = _bare_step(pipeline, image_files(work, size, batch), size.side, precision, optimiser)
    steps = Steps(size.warm_up)
    for _ in range(size.warm_up + size.timed):
        step()
        steps()
    return steps.result() | {"batch": batch} | peak_memory()


def _bare_step(
    pipeline: Pipeline, files: list[Path], side: int, precision: str, optimiser: Optimiser
) -> Callable[[], None]:
    """Return a function that takes one step of the bare loop."""
    unet, text_encoder = pipeline.unet, pipeline.text_encoder
    for model in (unet, text_encoder, pipeline.vae):
        model.requires_grad_(False)
    add_adapter(pipeline, AdapterConfig(), 0)
    for model in (unet, text_encoder):
        model.train()
    parameters = adapter_parameters(pipeline)
    for parameter in parameters:
        parameter.data = parameter.data.float()
    adamw = torch.optim.AdamW(parameters, lr=LR) if optimiser == "adamw" else build_optimiser(parameters, LR, optimiser)
    scaler = torch.amp.GradScaler(DEVICE.type, enabled=precision == "fp16")
    prompts = [PROMPTS[index >= len(files) // 2] for index in range(len(files))]

    def step() -> None:
        images = bare_images(files, side, side).to(DEVICE, DTYPES[precision])
        with torch.autocast(DEVICE.type, DTYPES[precision], enabled=precision != "fp32"):
            loss = bare_loss(pipeline, images, prompts)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(adamw)
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        scaler.step(adamw)
        scaler.update()
        adamw.zero_grad()
        loss.item()

    return step


def bare_loss(pipeline: Pipeline, images: Tensor, prompts: list[str]) -> Tensor:
    """Return the loss of images (N, 3, H, W); the first half are instance images, the second half class images."""
    vae, tokenizer, scheduler = pipeline.vae, pipeline.tokenizer, pipeline.scheduler
    with torch.no_grad(), torch.autocast(DEVICE.type, enabled=False):  # the example does not prepare the VAE
        latents = vae.encode(images).latent_dist.sample() * vae.config.scaling_factor
    tokens = tokenizer(
        prompts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    states = pipeline.text_encoder(tokens.input_ids.to(DEVICE))[0]
    noise = torch.randn_like(latents)
    times = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),), device=DEVICE)
    predicted = pipeline.unet(scheduler.add_noise(latents, noise, times), times, states).sample
    errors = (predicted.float() - noise.float()).square().mean(dim=(1, 2, 3))
    instance, prior = (errors * min_snr_weights(scheduler, times)).chunk(2)
    return instance.mean() + prior.mean()


def drawn_once(work: Path, size: Size) -> dict[str, Any]:
    """Draw the image files that all loops read."""
    files = image_files(work, size, size.batch)
    return {"images": len(files), "kB": round(float(np.sum([file.stat().st_size for file in files])) / 1000)}
