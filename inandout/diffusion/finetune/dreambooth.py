"""DreamBooth training of a LoRA-C3Lier adapter (paper, sections 3, 4.1 and 5.1)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters
from tqdm import tqdm

from inandout.checkpoint import (
    Checkpoint,
    NonFiniteLossError,
    load_checkpoint,
    pack_optimiser,
    save_checkpoint,
    unpack_optimiser,
)
from inandout.diffusion.base.base import Base
from inandout.diffusion.callbacks import OnStep, set_learning_rate
from inandout.diffusion.finetune.batch import Batch, load_batch
from inandout.diffusion.finetune.config import DreamBoothConfig, Optimiser
from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, make_batches
from inandout.diffusion.finetune.dreambooth_loss import denoising_errors, dreambooth_loss
from inandout.diffusion.lora.layers import adapter_parameters, adapter_tensors, set_adapter_tensors
from inandout.diffusion.lr_schedules import cosine_with_restarts
from inandout.diffusion.pipeline import adaptable_models, hardware_of, text_encoders, weight_type
from inandout.diffusion.prompts import encode_prompts
from inandout.hardware import Hardware

MAX_GRADIENT_NORM = 1.0
"""Gradients with a larger norm are clipped to this norm (paper)."""


def dreambooth(
    base: Base,
    dataset: DreamBoothDataset,
    *,
    epochs: int,
    lr: float,
    config: DreamBoothConfig,
    seed: int,
    checkpoint: Path | None = None,
    save_every: int = 50,
    on_step: OnStep = lambda step, values: None,
) -> dict[str, Tensor]:
    """Train the adapter that `add_adapter` added to the base, and return its weights.

    Noise and timesteps depend on seed and step alone. Under `accelerate launch` each batch is split over the processes,
    with the same loss as one process.

    Args:
        base: has an adapter, the only part that is trained. Its device and precision are those of the training; the
            adapter is trained in fp32.
        dataset: training images; see `make_batches` for their order. Without prior images there is no prior
            preservation.
        epochs: number of epochs. The learning-rate schedule may be longer (`config.schedule_epochs`), as in the paper.
        lr: highest learning rate.
        config: other settings.
        seed: determines order, noise and timesteps.
        checkpoint: written every `save_every` steps and at the end. If it exists, training resumes from it; on a CPU
            the final weights are the same bit for bit.
        save_every: steps between checkpoints.
        on_step: called with the step and `loss`, `instance_loss`, `prior_loss` (both without `prior_weight`), the
            number of images of each kind so far (`instance_seen`, `prior_seen`), `gradient_norm`, `lr`, and `progress`,
            which is 1 at the last step.

    Raises:
        NonFiniteLossError: loss or gradient is not finite; the last checkpoint is kept.
        InputError: a checkpoint of another adapter, or no instance images.
    """
    steps = make_batches(dataset.examples, epochs, config.repeats, config.batch_size, seed)
    schedule_steps = round(len(steps) / epochs * config.schedule_epochs)
    accelerator = _accelerator(hardware_of(base.pipeline))
    training = _prepare(base, dataset, config, lr, accelerator)
    done, seen = _resume(training, checkpoint)
    shown = tqdm(steps[done:], "finetune", total=len(steps), initial=done, unit="step", disable=None)
    for step, batch in enumerate(shown, start=done + 1):
        rate = cosine_with_restarts(step, schedule_steps, lr, config.restarts)
        values = _step(training, batch, step, seed, rate, config)
        seen = [before + now for before, now in zip(seen, dataset.count(batch), strict=True)]
        if checkpoint is not None and (step % save_every == 0 or step == len(steps)):
            _save(training, checkpoint, step, seen)
        values |= {"instance_seen": seen[0], "prior_seen": seen[1], "lr": rate, "progress": step / len(steps)}
        on_step(step, values)
    return training.weights()


@dataclass(frozen=True)
class _Training:
    """Models, data and optimiser of a training."""

    base: Base
    scheduler: DDIMScheduler
    dataset: DreamBoothDataset
    parameters: list[nn.Parameter]
    optimised: list[nn.Parameter]
    """The same values as the optimiser sees them."""
    optimiser: Any
    accelerator: Accelerator

    def weights(self) -> dict[str, Tensor]:
        """Return the adapter's weights."""
        return adapter_tensors(self.base.pipeline)


def _accelerator(hardware: Hardware) -> Accelerator:
    AcceleratorState._reset_state()  # it keeps the precision of the previous training of this process
    precision = "no" if hardware.precision == "fp32" else hardware.precision
    return Accelerator(mixed_precision=precision, cpu=hardware.device.type == "cpu")


def processes(device: torch.device) -> PartialState:
    """Return the processes of `accelerate launch` or `torchrun`, with a timeout of a day for prior images."""
    return PartialState(cpu=device.type == "cpu", timeout=timedelta(days=1))


def _prepare(
    base: Base, dataset: DreamBoothDataset, config: DreamBoothConfig, lr: float, accelerator: Accelerator
) -> _Training:  # fmt: skip
    """Cast the adapter to fp32, and create the optimiser."""
    for module in adaptable_models(base.pipeline).values():
        module.to(accelerator.device)
    parameters = adapter_parameters(base.pipeline)
    for parameter in parameters:
        parameter.data = parameter.data.float()
    for encoder in text_encoders(base.pipeline).values():
        encoder.train()
        if config.gradient_checkpointing:
            encoder.activation_checkpointing_enable()
    base.pipeline.unet.eval()  # in training mode its blocks convert inputs from channels-last (diffusers' issue 12975)
    if config.gradient_checkpointing:
        base.pipeline.unet.enable_gradient_checkpointing()
    chosen = chosen_optimiser(config.optimiser, accelerator.device)
    optimised = parameters if chosen == "adamw8bit" else [_flatten_parameters(parameters)]
    optimiser = accelerator.prepare(build_optimiser(optimised, lr, chosen))
    scheduler = DDIMScheduler.from_config(base.pipeline.scheduler.config)
    return _Training(base, scheduler, dataset, parameters, optimised, optimiser, accelerator)


def _flatten_parameters(parameters: list[nn.Parameter]) -> nn.Parameter:
    """Copy all parameters into one vector that shares memory with them; an optimiser is faster on one tensor.

    It is not used for 8-bit AdamW, in which neighbouring values share a scale.
    """
    vector = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    vector_to_parameters(vector.data, parameters)
    return vector


def chosen_optimiser(requested: Optimiser, device: torch.device) -> Optimiser:
    """Resolve "auto" on a device: 8-bit AdamW on a GPU that bitsandbytes supports."""
    if requested != "auto":
        return requested
    if device.type != "cuda":
        return "adamw"
    try:
        weight = nn.Parameter(torch.zeros(8192, device=device))
        weight.grad = torch.ones_like(weight)
        build_optimiser([weight], 1e-3, "adamw8bit").step()
    except (ImportError, OSError, RuntimeError, AttributeError):  # bitsandbytes lacks kernels for this GPU
        return "adamw"
    return "adamw8bit"


def build_optimiser(parameters: list[nn.Parameter], lr: float, chosen: Optimiser) -> torch.optim.Optimizer:
    """Return AdamW with PyTorch's defaults, or the 8-bit version with a quarter of the optimiser state."""
    if chosen == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit  # takes seconds to import

        optimiser: torch.optim.Optimizer = AdamW8bit(parameters, lr=lr)
        return optimiser
    return torch.optim.AdamW(parameters, lr=lr, fused=True)


def _step(
    training: _Training, batch: Sequence[int], step: int, seed: int, rate: float, config: DreamBoothConfig
) -> dict[str, float]:
    """Take one optimiser step; raise before it if loss or gradient is not finite."""
    accelerator, optimiser = training.accelerator, training.optimiser
    set_learning_rate(optimiser, rate)
    optimiser.zero_grad()
    values = _backward(training, batch, step, seed, config)
    values["gradient_norm"] = float(accelerator.clip_grad_norm_(training.optimised, MAX_GRADIENT_NORM))
    if not math.isfinite(values["loss"]) or not _is_usable(values["gradient_norm"], accelerator.scaler):
        raise NonFiniteLossError(
            f"loss {values['loss']} and gradient norm {values['gradient_norm']} at step {step}; "
            "lower lr and start the command again"
        )
    optimiser.step()
    return values


def _is_usable(gradient_norm: float, scaler: torch.amp.GradScaler | None) -> bool:
    """Return whether a gradient is finite, or infinite because of the loss scale.

    With fp16 an infinite gradient skips the step and halves the scale. Below a scale of 1 the scale is not the cause.
    """
    return math.isfinite(gradient_norm) or (scaler is not None and scaler.get_scale() >= 1)


def _backward(
    training: _Training, batch: Sequence[int], step: int, seed: int, config: DreamBoothConfig
) -> dict[str, float]:
    """Set the gradients of the loss of a batch, and return its mean losses over all processes.

    The loss of this process is that of its share; the mean over the processes is the loss of the batch.
    """
    shared = load_batch(training.base.pipeline, training.dataset, batch, step, seed, training.accelerator)
    size = config.micro_batch or len(shared.latents)
    errors, total = [], None
    for start in range(0, len(shared.latents), size):
        part = shared.part(start, start + size)
        errors.append(_errors(training, part))
        loss = dreambooth_loss(errors[-1], part.prior, config.prior_weight, part.valid)
        gradient = _gradient(training, loss * training.accelerator.num_processes / len(batch))
        total = gradient if total is None else total.add_(gradient)
        errors[-1] = errors[-1].detach().cpu()
    assert total is not None
    _set_gradients(training, total)
    return _means(torch.cat(errors), shared.valid, shared.prior, config.prior_weight, training.accelerator)


def _gradient(training: _Training, loss: Tensor) -> Tensor:
    """Return the gradient as one vector; 0 for layers of the text encoders that clip_skip leaves out.

    With fp16 the loss is scaled; accelerate unscales the gradients before clipping.
    """
    scaler = training.accelerator.scaler
    scaled = loss if scaler is None else scaler.scale(loss)
    gradients = torch.autograd.grad(scaled, training.parameters, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


def _set_gradients(training: _Training, vector: Tensor) -> None:
    """Set the gradients of the optimised parameters, averaged over the processes."""
    if training.accelerator.num_processes > 1:
        vector = training.accelerator.reduce(vector, "mean")
    parts = torch.split(vector, [parameter.numel() for parameter in training.optimised])
    for parameter, gradient in zip(training.optimised, parts, strict=True):
        parameter.grad = gradient.view_as(parameter)


def _errors(training: _Training, batch: Batch) -> Tensor:
    """Return min-SNR weighted squared errors (N,). Each of the two prompts is encoded once."""
    dataset, scheduler, pipeline = training.dataset, training.scheduler, training.base.pipeline
    prompts = [dataset.instance_prompt, dataset.prior_prompt][: 1 + int(batch.prior.max())]
    factor = pipeline.vae_scale_factor
    height, width = batch.latents.shape[2] * factor, batch.latents.shape[3] * factor
    with training.accelerator.autocast():
        conditioning = encode_prompts(pipeline, prompts, dataset.clip_skip).take(batch.prior.long())
        noisy = scheduler.add_noise(batch.latents, batch.noise, batch.times)
        noisy = noisy if batch.masked is None else torch.cat([noisy, batch.masked], dim=1)
        arguments = conditioning.unet_arguments(height, width, weight_type(pipeline))
        channels_last = noisy.contiguous(memory_format=torch.channels_last)
        predicted = pipeline.unet(channels_last, batch.times, **arguments).sample
    return denoising_errors(scheduler, predicted, batch.latents, batch.noise, batch.times, batch.weights)


def _means(
    errors: Tensor, valid: Tensor, prior: Tensor, prior_weight: float, accelerator: Accelerator
) -> dict[str, float]:
    """Return the mean losses of the whole batch over all processes; a mean of no images is left out."""
    instance = valid * (1 - prior)
    sums = torch.stack(
        [(errors * instance).sum(), instance.sum(), (errors * valid * prior).sum(), (valid * prior).sum()]
    )
    total = accelerator.reduce(sums.to(accelerator.device), "sum").tolist()
    values = {"loss": (total[0] + prior_weight * total[2]) / (total[1] + total[3])}
    values |= {"instance_loss": total[0] / total[1]} if total[1] else {}
    return values | ({"prior_loss": total[2] / total[3]} if total[3] else {})


def _save(training: _Training, checkpoint: Path, step: int, seen: list[int]) -> None:
    """Write a checkpoint in the main process only."""
    if training.accelerator.is_main_process:
        state = training.weights() | pack_optimiser(training.optimiser)
        save_checkpoint(checkpoint, Checkpoint(state, {"step": step, "seen": seen}))


def _resume(training: _Training, checkpoint: Path | None) -> tuple[int, list[int]]:
    """Restore a checkpoint, and return the number of steps and the numbers of (instance, prior) images so far."""
    if checkpoint is None or not checkpoint.exists():
        return 0, [0, 0]
    weights, progress = load_checkpoint(checkpoint)
    adapter_weights = unpack_optimiser(training.optimiser, weights)
    set_adapter_tensors(training.base.pipeline, adapter_weights)
    return int(progress["step"]), list(progress["seen"])
