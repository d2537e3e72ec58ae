"""What a UNet is asked for: the target, the weight of its error, and at which noise."""

import torch
from diffusers import DDIMScheduler
from torch import Tensor

GAMMA = 5.0
"""Of min-SNR weighting (Hang 2023); the paper's value."""


def draw_times(count: int, steps: int, generator: torch.Generator, power: float = 1.0) -> Tensor:
    """Timesteps (count,), evenly spread over 0..steps-1 with one random shift: less noise in the loss of a batch.

    A `power` below 1 moves them up, to more noise.
    """
    shares = ((torch.rand(1, generator=generator) + torch.arange(count) / count) % 1) ** power
    return (shares * steps).long().clamp(max=steps - 1)


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
