"""Train the decoder of the VAE."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn.functional import l1_loss
from tqdm import tqdm

from inandout.checkpoint import (
    Checkpoint,
    NonFiniteLossError,
    load_checkpoint,
    pack_optimiser,
    save_checkpoint,
    unpack_optimiser,
)
from inandout.diffusion.callbacks import OnStep, set_learning_rate
from inandout.diffusion.lr_schedules import warm_up_and_decay
from inandout.diffusion.pretrain.stream import SurfaceStream
from inandout.diffusion.vae import to_tensor

GRADIENT_WEIGHT = 2.0
"""Weight of the gradient error relative to the level error; it keeps grain sharp."""


def pretrain_vae(
    vae: AutoencoderTiny,
    stream: SurfaceStream,
    *,
    steps: int,
    lr: float,
    checkpoint: Path | None = None,
    save_every: int = 200,
    on_step: OnStep = lambda step, values: None,
) -> None:
    """Train the decoder in place with L1 on levels and gradients, AdamW, warm-up and cosine decay to 0.

    Args:
        vae: VAE with a frozen encoder.
        stream: images to reconstruct.
        steps: total number of steps, including those before a resume.
        lr: highest learning rate.
        checkpoint: written every `save_every` steps and at the end. If it exists, training resumes from it; the final
            weights are the same bit for bit as without interruption.
        save_every: steps between checkpoints.
        on_step: called with the step and `loss`, `level_error`, `gradient_error`, `lr`, and `progress`, which is 1 at
            the last step.

    Raises:
        NonFiniteLossError: the loss is not finite; the last checkpoint is kept.
    """
    decoder = vae.decoder.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    done = 0
    if checkpoint is not None and checkpoint.exists():
        weights, progress = load_checkpoint(checkpoint)
        decoder.load_state_dict({name[3:]: value for name, value in weights.items() if name.startswith("de.")})
        unpack_optimiser(optimiser, weights)
        done = int(progress["step"])
    for step in tqdm(range(done + 1, steps + 1), "vae", total=steps, initial=done, unit="step", disable=None):
        rate = warm_up_and_decay(step, steps, lr)
        set_learning_rate(optimiser, rate)
        values = _step(vae, optimiser, to_tensor(stream.batch(step - 1).images), step)
        if checkpoint is not None and (step % save_every == 0 or step == steps):
            state = {f"de.{name}": value for name, value in decoder.state_dict().items()} | pack_optimiser(optimiser)
            save_checkpoint(checkpoint, Checkpoint(state, {"step": step}))
        on_step(step, values | {"lr": rate, "progress": step / steps})


def _step(vae: AutoencoderTiny, optimiser: torch.optim.Optimizer, images: Tensor, step: int) -> dict[str, float]:
    with torch.no_grad():
        latents = vae.encode(images).latents
    reconstructions = vae.decode(latents.contiguous(memory_format=torch.channels_last)).sample
    level, gradient = l1_loss(reconstructions, images), gradient_error(reconstructions, images)
    loss = level + GRADIENT_WEIGHT * gradient
    value = loss.item()
    if not torch.isfinite(loss):
        raise NonFiniteLossError(f"the loss is {value} at step {step}; lower lr and start again from the checkpoint")
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(vae.decoder.parameters(), 1.0)
    optimiser.step()
    return {"loss": value, "level_error": level.item(), "gradient_error": gradient.item()}


def gradient_error(reconstructions: Tensor, originals: Tensor) -> Tensor:
    """Return the mean absolute error of the differences of neighbouring pixels of (N, C, H, W) in both directions."""
    difference = reconstructions - originals
    return difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
