"""What a UNet is asked for: the target, the weight of its error, and at which noise."""

import torch
from diffusers import DDIMScheduler
from torch import Tensor

GAMMA = 5.0
"""Of min-SNR weighting (Hang 2023); the paper's value."""


DECIDING, WIDTH, ANYWHERE = 0.9, 0.8, 0.25
"""Of `draw_deciding_times`: mean and standard deviation of the logits, and the share that is evenly drawn."""


def draw_times(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Timesteps (count,), evenly spread over 0..steps-1 with one random shift: less noise in the loss of a batch.

    They are on the device of the generator.
    """
    return (_spread(count, generator) * steps).long().clamp(max=steps - 1)


def draw_deciding_times(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Timesteps (count,), most of them where it is decided what is drawn.

    A quarter is evenly drawn; the logits of the others, t / steps, are normal (Esser 2024, eq. 19), with a median of
    .71. Looked at, that is where the embedded base needs to learn: from there down to the middle of the schedule it
    finds a defect again that was put under noise, above it draws another.
    """
    shares = _spread(count, generator).clamp(1e-4, 1 - 1e-4)
    deciding = torch.special.expit(DECIDING + WIDTH * torch.special.ndtri(shares))
    evenly = torch.rand(count, generator=generator, device=generator.device)
    rare = torch.rand(count, generator=generator, device=generator.device) < ANYWHERE
    return (torch.where(rare, evenly, deciding) * steps).long().clamp(max=steps - 1)


def _spread(count: int, generator: torch.Generator) -> Tensor:
    shift = torch.rand(1, generator=generator, device=generator.device)
    return (shift + torch.arange(count, device=generator.device) / count) % 1


def target(scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """What the UNet should answer: the noise, or v of a model that predicts v."""
    if scheduler.config.prediction_type == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(latents, noise, times)
        return velocity
    return noise


def min_snr_weights(scheduler: DDIMScheduler, times: Tensor) -> Tensor:
    """Weights (N,) of the squared errors at timesteps (N,).

    For the noise min(SNR, gamma) / SNR. For v min(SNR + 1, gamma) / (SNR + 1), which on the error of the picture is
    min(SNR + 1, gamma). (kohya's scripts have min(SNR, gamma) / (SNR + 1), which would leave the last step of a
    schedule that ends in pure noise without any weight.)
    """
    signal = scheduler.alphas_cumprod.to(times.device)[times]
    if scheduler.config.prediction_type == "v_prediction":
        plus_one = 1 / (1 - signal).clamp(min=1e-8)  # SNR + 1 = a / (1 - a) + 1
        return plus_one.clamp(max=GAMMA) / plus_one
    snr = signal / (1 - signal).clamp(min=1e-8)
    return snr.clamp(max=GAMMA) / snr.clamp(min=1e-8)
