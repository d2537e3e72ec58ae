"""Train UNet and text encoder together. Knows pictures and captions; knows neither MLflow nor the command line."""

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
from inandout.diffusion.autoencoder import encode
from inandout.diffusion.averages import Averages
from inandout.diffusion.latents import FACTOR
from inandout.diffusion.loss import draw_deciding_times, min_snr_weights, target
from inandout.diffusion.prompts import prompt_states
from inandout.diffusion.rates import hold_and_decay
from inandout.diffusion.school import Batch, School
from inandout.diffusion.steps import OnStep, set_rate

UNCONDITIONAL = 0.1
"""Share of pictures that are trained with an empty caption, for classifier-free guidance."""
TEXT_SHARE = 0.1
"""Learning rate of the text encoder, as a share of the UNet's. From nothing, with the same rate its states had
collapsed to a single vector when they were looked at after 2,000 steps. Later more is better: after 12,000 steps with
this share, cracked and pitted, stained and dented lay nearest to each other of all, and were confused."""
DEFECT_WEIGHT = 5.0
"""Weight of the squared error where there is a defect; 1 elsewhere. It is 4 to 17 % of a picture; without this
little of the loss hangs on the word that names it."""


@dataclass(frozen=True)
class Student:
    """What is trained, what it is trained with, and the running averages, which are what is shipped."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    vae: AutoencoderTiny
    scheduler: DDIMScheduler
    averages: Averages

    def parts(self) -> nn.ModuleDict:
        """The trained modules by name, sharing their weights."""
        return nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder})


def pretrain_unet(
    student: Student,
    school: School,
    *,
    steps: int,
    lr: float,
    text_share: float = TEXT_SHARE,
    checkpoint: Path | None = None,
    save_every: int = 200,
    on_step: OnStep = lambda step, values: None,
) -> None:
    """Train in place: v-prediction, min-SNR, heavier defects, guidance dropout, AdamW, running averages.

    Latents need no cache: the encoder is three small convolutions. A process of its own draws the batches, as that
    takes up to a sixth of the time of a step.
    Batch, noise and timesteps of a step are functions of the school's seed and the step alone.

    Args:
        student: trained in place, the averages, too.
        school: what to learn.
        steps: in all, also those before a resume; the learning rate falls over the last 30 %.
        lr: learning rate before that.
        text_share: learning rate of the text encoder as a share of it.
        checkpoint: written every `save_every` steps and at the end; where it exists, training goes on from it and
            ends with the same weights, bit for bit, as a run that was never stopped (same machine and threads).
        save_every: steps between checkpoints.
        on_step: called with the step and `loss` (unweighted), `weighted_loss`, `gradient_norm`, `lr`.

    Raises:
        NonFiniteLossError: names the step; the checkpoint is from before.
    """
    parts = student.parts().train()
    optimiser = torch.optim.AdamW(
        _groups(student, text_share), lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )  # fmt: skip
    done = _resume(parts, student.averages, optimiser, checkpoint)
    batches = DataLoader(
        _Batches(school), batch_size=None, sampler=range(done, steps), num_workers=1, collate_fn=_as_is
    )  # fmt: skip
    for step, batch in enumerate(tqdm(batches, "unet", total=steps, initial=done, unit="step", disable=None), done + 1):
        rate = hold_and_decay(step, steps, lr)
        set_rate(optimiser, rate)
        loss, values = _loss(student, batch, school.seed, step)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(f"the loss is {loss.item()} at step {step}; lower lr and start the command again")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        values["gradient_norm"] = float(nn.utils.clip_grad_norm_(parts.parameters(), 1.0))
        optimiser.step()
        student.averages.update(parts, step)
        if checkpoint is not None and (step % save_every == 0 or step == steps):
            state = parts.state_dict() | student.averages.packed() | pack_optimiser(optimiser)
            save_checkpoint(checkpoint, Checkpoint(state, {"step": step}))
        on_step(step, values | {"lr": rate})


def _groups(student: Student, text_share: float) -> list[dict[str, Any]]:
    """Parameters, each with its share of the learning rate."""
    return [
        {"params": list(student.unet.parameters()), "share": 1.0},
        {"params": list(student.text_encoder.parameters()), "share": text_share},
    ]


class _Batches(Dataset[Batch]):
    """The school as torch's loader wants it."""

    def __init__(self, school: School) -> None:
        self.school = school

    def __getitem__(self, number: int) -> Batch:
        return self.school.batch(number)


def _as_is(batch: Any) -> Any:
    """What a batch of one becomes; torch would make tensors of it."""
    return batch


def _loss(student: Student, batch: Batch, seed: int, step: int) -> tuple[Tensor, dict[str, float]]:
    generator = torch.Generator().manual_seed((seed << 32) + step)
    dropped = torch.rand(len(batch.captions), generator=generator) < UNCONDITIONAL
    captions = ["" if drop else caption for caption, drop in zip(batch.captions, dropped, strict=True)]
    states = prompt_states(student.text_encoder, student.tokenizer, captions)
    latents, weights = encode(student.vae, batch.pictures), defect_weights(batch.masks)
    loss, errors = denoising_loss(student.unet, student.scheduler, latents, weights, states, generator)
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
        weights: (N, H, W), from `defect_weights`.
        states: (N, tokens, width), from the text encoder.
        generator: of noise and timesteps.
    """
    noise = torch.randn(latents.shape, generator=generator, device=generator.device)
    times = draw_deciding_times(len(latents), scheduler.config.num_train_timesteps, generator)
    noisy = scheduler.add_noise(latents, noise, times).contiguous(memory_format=torch.channels_last)
    predicted = unet(noisy, times, states).sample.float()
    errors = (predicted - target(scheduler, latents, noise, times)).square().mean(dim=1)
    return ((errors * weights).mean(dim=(1, 2)) * min_snr_weights(scheduler, times)).mean(), errors


def defect_weights(masks: npt.NDArray[np.bool_]) -> Tensor:
    """(N, H/2, W/2) for masks (N, H, W): `DEFECT_WEIGHT` at a defect and 2 px around it, else 1."""
    defects = torch.from_numpy(masks)[:, None].float()
    near = max_pool2d(defects, kernel_size=FACTOR + 4, stride=FACTOR, padding=2)[:, 0]
    return 1 + (DEFECT_WEIGHT - 1) * near


def _resume(parts: nn.ModuleDict, averages: Averages, optimiser: torch.optim.Optimizer, checkpoint: Path | None) -> int:
    """Put everything back that a checkpoint holds; the number of steps that were done."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    weights, progress = load_checkpoint(checkpoint)
    parts.load_state_dict({name: weights[name] for name in parts.state_dict()})
    averages.load(weights)
    unpack_optimiser(optimiser, weights)
    return int(progress["step"])
