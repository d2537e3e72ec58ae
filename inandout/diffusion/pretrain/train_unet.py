"""Train UNet and text encoder of the embedded base together."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import max_pool2d
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from inandout.checkpoint import (
    Checkpoint,
    NonFiniteLossError,
    load_checkpoint,
    pack_optimiser,
    save_checkpoint,
    unpack_optimiser,
)
from inandout.diffusion.callbacks import OnStep, set_learning_rate
from inandout.diffusion.lr_schedules import hold_and_decay
from inandout.diffusion.pretrain.config import TEXT_SHARE
from inandout.diffusion.pretrain.ema import ExponentialMovingAverage
from inandout.diffusion.pretrain.pca_latents import FACTOR
from inandout.diffusion.pretrain.stream import Batch, SurfaceStream
from inandout.diffusion.prompts import prompt_states
from inandout.diffusion.snr_weighting import draw_logit_normal_times, min_snr_weights, prediction_target
from inandout.diffusion.vae import encode

UNCONDITIONAL = 0.1
"""Share of images with an empty caption, for classifier-free guidance."""
DEFECT_WEIGHT = 5.0
"""Weight of the squared error at a defect; 1 elsewhere. A defect covers 4 to 17 % of an image; without the weight, the
word that names it has little influence on the loss."""


@dataclass(frozen=True)
class TrainState:
    """The trained models, their training components, and the EMA weights, which are shipped."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    vae: AutoencoderTiny
    scheduler: DDIMScheduler
    ema: ExponentialMovingAverage

    def parts(self) -> nn.ModuleDict:
        """Return the trained modules by name, sharing their weights."""
        return nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder})


def pretrain_unet(
    train_state: TrainState,
    stream: SurfaceStream,
    *,
    steps: int,
    lr: float,
    text_share: float = TEXT_SHARE,
    checkpoint: Path | None = None,
    save_every: int = 200,
    on_step: OnStep = lambda step, values: None,
) -> None:
    """Train in place: v-prediction, min-SNR, weighted defects, caption dropout for guidance, AdamW, EMA.

    Latents are not cached because the encoder is only three small convolutions. A worker process draws the batches,
    which takes up to a sixth of the time of a step. Batch, noise and timesteps depend on the stream's seed and the step
    alone.

    Args:
        train_state: trained in place, including the EMA.
        stream: training data.
        steps: total number of steps, including those before a resume; the learning rate decays over the last 30 %.
        lr: learning rate before the decay.
        text_share: learning rate of the text encoder relative to `lr`.
        checkpoint: written every `save_every` steps and at the end. If it exists, training resumes from it; the final
            weights are the same bit for bit as without interruption (same machine and threads).
        save_every: steps between checkpoints.
        on_step: called with the step and `loss` (unweighted), `weighted_loss`, `gradient_norm`, `lr`, and `progress`,
            which is 1 at the last step.

    Raises:
        NonFiniteLossError: the loss is not finite; the last checkpoint is kept.
    """
    parts = train_state.parts().train()
    optimiser = torch.optim.AdamW(
        _parameter_groups(train_state, text_share), lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )  # fmt: skip
    done = _resume(parts, train_state.ema, optimiser, checkpoint)
    batches = DataLoader(
        _Batches(stream), batch_size=None, sampler=range(done, steps), num_workers=1, collate_fn=_identity
    )  # fmt: skip
    for step, batch in enumerate(tqdm(batches, "unet", total=steps, initial=done, unit="step", disable=None), done + 1):
        rate = hold_and_decay(step, steps, lr)
        set_learning_rate(optimiser, rate)
        loss, values = _loss(train_state, batch, stream.seed, step)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(f"the loss is {loss.item()} at step {step}; lower lr and start the command again")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        values["gradient_norm"] = float(nn.utils.clip_grad_norm_(parts.parameters(), 1.0))
        optimiser.step()
        train_state.ema.update(parts, step)
        if checkpoint is not None and (step % save_every == 0 or step == steps):
            state = parts.state_dict() | train_state.ema.packed() | pack_optimiser(optimiser)
            save_checkpoint(checkpoint, Checkpoint(state, {"step": step}))
        on_step(step, values | {"lr": rate, "progress": step / steps})


def _parameter_groups(train_state: TrainState, text_share: float) -> list[dict[str, Any]]:
    """Return the parameter groups with their share of the learning rate."""
    return [
        {"params": list(train_state.unet.parameters()), "share": 1.0},
        {"params": list(train_state.text_encoder.parameters()), "share": text_share},
    ]


class _Batches(Dataset[Batch]):
    """The stream as a dataset of torch's data loader."""

    def __init__(self, stream: SurfaceStream) -> None:
        self.stream = stream

    def __getitem__(self, number: int) -> Batch:
        return self.stream.batch(number)


def _identity(batch: Any) -> Any:
    """Keep a batch as it is; torch's default collate function would convert it to tensors."""
    return batch


def _loss(train_state: TrainState, batch: Batch, seed: int, step: int) -> tuple[Tensor, dict[str, float]]:
    generator = torch.Generator().manual_seed((seed << 32) + step)
    dropped = torch.rand(len(batch.captions), generator=generator) < UNCONDITIONAL
    captions = ["" if drop else caption for caption, drop in zip(batch.captions, dropped, strict=True)]
    states = prompt_states(train_state.text_encoder, train_state.tokenizer, captions)
    latents, weights = encode(train_state.vae, batch.images), pixel_weights(batch.masks)
    loss, errors = denoising_loss(train_state.unet, train_state.scheduler, latents, weights, states, generator)
    return loss, {"loss": errors.mean().item(), "weighted_loss": loss.item()}


def denoising_loss(
    unet: Callable[..., Any],
    scheduler: DDIMScheduler,
    latents: Tensor,
    weights: Tensor,
    states: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The loss of a batch at random noise and timesteps, and the unweighted squared errors (N, H, W).

    Args:
        unet: the UNet, compiled or not, on the device of everything else.
        scheduler: schedule of the noise, v-prediction.
        latents: (N, C, H, W), scaled for the UNet.
        weights: (N, H, W), from `pixel_weights`.
        states: (N, tokens, width), from the text encoder.
        generator: of noise and timesteps.
    """
    noise = torch.randn(latents.shape, generator=generator, device=generator.device)
    times = draw_logit_normal_times(len(latents), scheduler.config.num_train_timesteps, generator)
    noisy = scheduler.add_noise(latents, noise, times).contiguous(memory_format=torch.channels_last)
    predicted = unet(noisy, times, states).sample.float()
    errors = (predicted - prediction_target(scheduler, latents, noise, times)).square().mean(dim=1)
    return ((errors * weights).mean(dim=(1, 2)) * min_snr_weights(scheduler, times)).mean(), errors


def pixel_weights(masks: npt.NDArray[np.bool_]) -> Tensor:
    """Return weights (N, H/2, W/2) for masks (N, H, W): `DEFECT_WEIGHT` up to 2 px around a defect, else 1."""
    defects = torch.from_numpy(masks)[:, None].float()
    near = max_pool2d(defects, kernel_size=FACTOR + 4, stride=FACTOR, padding=2)[:, 0]
    return 1 + (DEFECT_WEIGHT - 1) * near


def _resume(
    parts: nn.ModuleDict, ema: ExponentialMovingAverage, optimiser: torch.optim.Optimizer, checkpoint: Path | None
) -> int:
    """Restore a checkpoint, and return the number of steps so far."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    weights, progress = load_checkpoint(checkpoint)
    parts.load_state_dict({name: weights[name] for name in parts.state_dict()})
    ema.load(weights)
    unpack_optimiser(optimiser, weights)
    return int(progress["step"])
