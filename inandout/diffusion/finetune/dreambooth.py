"""DreamBooth on a LoRA-C3Lier adapter (paper, sections 3, 4.1 and 5.1). Knows neither MLflow nor the command line."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator, PartialState
from diffusers import DDIMScheduler
from pydantic import BaseModel, ConfigDict, Field
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
from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, make_batches
from inandout.diffusion.finetune.dreambooth_loss import denoising_errors, dreambooth_loss
from inandout.diffusion.lora.layers import adapter_parameters, adapter_tensors, set_adapter_tensors
from inandout.diffusion.lr_schedules import cosine_with_restarts
from inandout.diffusion.prompts import prompt_states
from inandout.diffusion.snr_weighting import draw_times
from inandout.errors import InputError

Optimiser = Literal["auto", "adamw", "adamw8bit"]

MAX_GRADIENT_NORM = 1.0
"""The paper's; a longer gradient is shortened to it."""
_PRECISIONS = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class DreamBoothConfig(BaseModel):
    """How an adapter is trained; what the paper changes from scenario to scenario is in `presets.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(12, ge=1, le=4096, description="images a step, those of the class prompt included")
    repeats: int = Field(10, ge=1, le=10_000, description="times that an epoch shows each image")
    schedule_epochs: int = Field(50, ge=1, le=100_000, description="epochs that the learning-rate schedule spans")
    restarts: int = Field(3, ge=1, le=1000, description="cosines, one after the other, in schedule_epochs")
    prior_weight: float = Field(1.0, ge=0, le=100, description="weight of the loss on images of the class prompt")
    precision: Literal["fp32", "fp16", "bf16"] = Field("fp32", description="of the frozen weights; 16 bits need a GPU")
    optimiser: Optimiser = Field(
        "auto", description="auto: AdamW8bit of bitsandbytes (paper) on a GPU, where it saves memory, else AdamW"
    )
    gradient_checkpointing: bool = Field(False, description="compute activations twice to save memory")


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
    """Train the adapter that `add_adapter` put into the base, and return its weights.

    Noise and timesteps of a step are functions of seed and step alone. Under `accelerate launch` a batch is shared out
    over the processes, which gives the loss of one process.

    Args:
        base: has an adapter; only that is trained. UNet and text encoder move to the device of the accelerator.
        dataset: what is learned; see `make_batches` for the order. Without prior images there is no prior preservation.
        epochs: to train; the schedule of the learning rate may be longer (`config.schedule_epochs`), as in the paper.
        lr: highest learning rate.
        config: the rest.
        seed: order, noise, timesteps.
        checkpoint: written every `save_every` steps and at the end; where it exists training goes on from it and ends,
            on a CPU, with the same weights bit for bit.
        save_every: steps.
        on_step: called with the step and `loss`, `instance_loss`, `prior_loss` (both without `prior_weight`), the
            number of images of both that the loss has seen (`instance_seen`, `prior_seen`), `gradient_norm`, `lr`,
            and `progress`, which is 1 at the last step.

    Raises:
        NonFiniteLossError: names the step; the checkpoint is from before.
        InputError: 16 bits without a GPU; a checkpoint of another adapter; no instance images.
    """
    steps = make_batches(dataset.examples, epochs, config.repeats, config.batch_size, seed)
    planned = round(len(steps) / epochs * config.schedule_epochs)
    accelerator = _accelerator(config)
    training = _prepare(base, dataset, config, lr, accelerator)
    done, seen = _resume(training, checkpoint)
    shown = tqdm(steps[done:], "finetune", total=len(steps), initial=done, unit="step", disable=None)
    for step, batch in enumerate(shown, start=done + 1):
        rate = cosine_with_restarts(step, planned, lr, config.restarts)
        values = _step(training, batch, step, seed, rate, config)
        seen = [before + now for before, now in zip(seen, dataset.count(batch), strict=True)]
        if checkpoint is not None and (step % save_every == 0 or step == len(steps)):
            _save(training, checkpoint, step, seen)
        values |= {"instance_seen": seen[0], "prior_seen": seen[1], "lr": rate, "progress": step / len(steps)}
        on_step(step, values)
    return training.weights()


@dataclass(frozen=True)
class _Training:
    """Everything that a step needs."""

    base: Base
    scheduler: DDIMScheduler
    dataset: DreamBoothDataset
    parameters: list[nn.Parameter]
    optimised: list[nn.Parameter]
    """The same numbers, as the optimiser has them."""
    optimiser: Any
    accelerator: Accelerator

    def weights(self) -> dict[str, Tensor]:
        """Of the adapter."""
        return adapter_tensors(self.base.pipeline.unet, self.base.pipeline.text_encoder)


def _accelerator(config: DreamBoothConfig) -> Accelerator:
    if config.precision != "fp32" and not torch.cuda.is_available():
        raise InputError(
            f"precision = {config.precision}: there is no GPU, and 16 bits are about 200 times slower on most CPUs; "
            "use fp32"
        )
    return Accelerator(mixed_precision=_PRECISIONS[config.precision], cpu=not torch.cuda.is_available())


def processes() -> PartialState:
    """Those of `accelerate launch` or `torchrun`; they wait for each other as long as prior images may take."""
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))


def _prepare(
    base: Base, dataset: DreamBoothDataset, config: DreamBoothConfig, lr: float, accelerator: Accelerator
) -> _Training:  # fmt: skip
    """Frozen weights in the precision asked for, the adapter in fp32, and an optimiser of the adapter."""
    unet, text_encoder = base.pipeline.unet, base.pipeline.text_encoder
    for module in (unet, text_encoder):
        module.to(accelerator.device)
        for parameter in module.parameters():
            parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else _DTYPES[config.precision])
    text_encoder.train()
    unet.eval()  # its blocks copy inputs out of channels-last in training (diffusers' issue 12975)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        text_encoder.activation_checkpointing_enable()
    parameters = adapter_parameters(unet, text_encoder)
    chosen = chosen_optimiser(config.optimiser)
    optimised = parameters if chosen == "adamw8bit" else [_as_vector(parameters)]
    optimiser = accelerator.prepare(build_optimiser(optimised, lr, chosen))
    scheduler = DDIMScheduler.from_config(base.pipeline.scheduler.config)
    return _Training(base, scheduler, dataset, parameters, optimised, optimiser, accelerator)


def _as_vector(parameters: list[nn.Parameter]) -> nn.Parameter:
    """All of them one after the other, in memory that they share from now on: an optimiser goes through one tensor more
    quickly. Not that of 8 bits, for which neighbours share a scale."""
    vector = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    vector_to_parameters(vector.data, parameters)
    return vector


def chosen_optimiser(asked: Optimiser) -> Optimiser:
    """What "auto" is on this machine: 8 bits where there is a GPU that bitsandbytes can use."""
    if asked != "auto":
        return asked
    if not torch.cuda.is_available():
        return "adamw"
    try:
        weight = nn.Parameter(torch.zeros(8192, device="cuda"))
        weight.grad = torch.ones_like(weight)
        build_optimiser([weight], 1e-3, "adamw8bit").step()
    except (ImportError, OSError, RuntimeError, AttributeError):  # no kernels for this GPU: it says so in many ways
        return "adamw"
    return "adamw8bit"


def build_optimiser(parameters: list[nn.Parameter], lr: float, chosen: Optimiser) -> torch.optim.Optimizer:
    """AdamW with PyTorch's defaults, or its 8-bit version, which keeps a quarter of the state."""
    if chosen == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit  # takes seconds to import

        optimiser: torch.optim.Optimizer = AdamW8bit(parameters, lr=lr)
        return optimiser
    return torch.optim.AdamW(parameters, lr=lr, fused=True)


def _step(
    training: _Training, batch: Sequence[int], step: int, seed: int, rate: float, config: DreamBoothConfig
) -> dict[str, float]:
    """One step of the optimiser; nothing moves if loss or gradient are not finite."""
    accelerator, optimiser = training.accelerator, training.optimiser
    set_learning_rate(optimiser, rate)
    optimiser.zero_grad()
    loss, values = _loss(training, batch, step, seed, config.prior_weight)
    _set_gradients(training, loss)
    values["gradient_norm"] = float(accelerator.clip_grad_norm_(training.optimised, MAX_GRADIENT_NORM))
    if not math.isfinite(values["loss"]) or not _usable(values["gradient_norm"], accelerator.scaler):
        raise NonFiniteLossError(
            f"loss {values['loss']} and gradient norm {values['gradient_norm']} at step {step}; "
            "lower lr and start the command again"
        )
    optimiser.step()
    return values


def _usable(gradient_norm: float, scaler: torch.amp.GradScaler | None) -> bool:
    """Whether a gradient is finite. With fp16 an infinite one only leaves out a step and halves the scale of the loss,
    as long as there is something to halve: below 1 it is not the scale that makes it infinite."""
    return math.isfinite(gradient_norm) or (scaler is not None and scaler.get_scale() >= 1)


def _loss(
    training: _Training, batch: Sequence[int], step: int, seed: int, prior_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """Of this process' share of a batch, such that the mean over the processes is the loss of the whole batch."""
    accelerator, dataset = training.accelerator, training.dataset
    generator = torch.Generator().manual_seed((seed << 20) + step)
    whole = torch.stack([dataset.examples[index].latent for index in batch])
    noise = torch.randn(whole.shape, generator=generator)
    times = draw_times(len(batch), training.scheduler.config.num_train_timesteps, generator)
    share = _share(len(batch), accelerator)
    mine = [place % len(batch) for place in share]
    counted = torch.tensor([float(place < len(batch)) for place in share])
    latents, noise, times = (tensor[mine].to(accelerator.device) for tensor in (whole, noise, times))
    prior = torch.tensor([float(dataset.examples[batch[place]].prior) for place in mine])
    errors = _errors(training, latents, noise, times, prior)
    loss = dreambooth_loss(errors, prior, prior_weight, counted) * accelerator.num_processes / len(batch)
    return loss, _means(errors.detach().cpu(), counted, prior, prior_weight, accelerator)


def _set_gradients(training: _Training, loss: Tensor) -> None:
    """Averaged over the processes; 0 for layers of the text encoder that clip_skip leaves out. With fp16 they are
    multiplied by the scale of the loss, which accelerate takes back before it clips."""
    accelerator, optimised = training.accelerator, training.optimised
    scaled = loss if accelerator.scaler is None else accelerator.scaler.scale(loss)
    gradients = torch.autograd.grad(scaled, training.parameters, materialize_grads=True)
    vector = torch.cat([gradient.flatten() for gradient in gradients])
    if accelerator.num_processes > 1:
        vector = accelerator.reduce(vector, "mean")
    parts = torch.split(vector, [parameter.numel() for parameter in optimised])
    for parameter, gradient in zip(optimised, parts, strict=True):
        parameter.grad = gradient.view_as(parameter)


def _share(count: int, accelerator: Accelerator) -> range:
    """Places in a batch that this process computes: as many as every other, so that some may lie beyond its end."""
    each = -(-count // accelerator.num_processes)
    return range(accelerator.process_index * each, (accelerator.process_index + 1) * each)


def _errors(training: _Training, latents: Tensor, noise: Tensor, times: Tensor, prior: Tensor) -> Tensor:
    """Squared errors (N,), weighted by min-SNR. The text encoder reads each of the two prompts once."""
    dataset, scheduler, pipeline = training.dataset, training.scheduler, training.base.pipeline
    prompts = [dataset.instance_prompt, dataset.prior_prompt][: 1 + int(prior.max())]
    with training.accelerator.autocast():
        read = prompt_states(pipeline.text_encoder, pipeline.tokenizer, prompts, dataset.clip_skip)
        noisy = scheduler.add_noise(latents, noise, times).contiguous(memory_format=torch.channels_last)
        predicted = pipeline.unet(noisy, times, read[prior.long().to(read.device)]).sample
    return denoising_errors(scheduler, predicted, latents, noise, times)


def _means(
    errors: Tensor, counted: Tensor, prior: Tensor, prior_weight: float, accelerator: Accelerator
) -> dict[str, float]:
    """Losses of the whole batch, over all processes; a mean over no image is left out."""
    instance = counted * (1 - prior)
    sums = torch.stack(
        [(errors * instance).sum(), instance.sum(), (errors * counted * prior).sum(), (counted * prior).sum()]
    )
    total = accelerator.reduce(sums.to(accelerator.device), "sum").tolist()
    values = {"loss": (total[0] + prior_weight * total[2]) / (total[1] + total[3])}
    values |= {"instance_loss": total[0] / total[1]} if total[1] else {}
    return values | ({"prior_loss": total[2] / total[3]} if total[3] else {})


def _save(training: _Training, checkpoint: Path, step: int, seen: list[int]) -> None:
    """By one of the processes, for all."""
    if training.accelerator.is_main_process:
        state = training.weights() | pack_optimiser(training.optimiser)
        save_checkpoint(checkpoint, Checkpoint(state, {"step": step, "seen": seen}))


def _resume(training: _Training, checkpoint: Path | None) -> tuple[int, list[int]]:
    """Put everything back that a checkpoint holds; (steps done, images seen of both kinds)."""
    if checkpoint is None or not checkpoint.exists():
        return 0, [0, 0]
    weights, progress = load_checkpoint(checkpoint)
    others = unpack_optimiser(training.optimiser, weights)
    set_adapter_tensors(training.base.pipeline.unet, training.base.pipeline.text_encoder, others)
    return int(progress["step"]), list(progress["seen"])
