"""Training target, min-SNR loss weights and sampling of timesteps."""

import torch
from diffusers import DDIMScheduler
from torch import Tensor

GAMMA = 5.0
"""Gamma of min-SNR weighting, the value of the paper (Hang 2023)."""


LOGIT_MEAN, LOGIT_STD, UNIFORM_SHARE = 0.9, 0.8, 0.25
"""Of `draw_logit_normal_times`: mean and standard deviation of the logits, and the share of uniform timesteps."""


def draw_times(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Draw timesteps (count,), evenly spaced over 0..steps-1 with one random shift, so that the loss varies less.

    The timesteps are on the generator's device.
    """
    return (_evenly_spaced(count, generator) * steps).long().clamp(max=steps - 1)


def draw_logit_normal_times(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Draw timesteps (count,), most of them where the content of the image is decided.

    A quarter is uniform. For the others the logit of t / steps is normal (Esser 2024, eq. 19) with median t / steps =
    .71. Inspection of the embedded base shows that it must learn in this range: from there down to the middle of the
    schedule it restores a defect that was covered with noise, above it generates a different one.
    """
    shares = _evenly_spaced(count, generator).clamp(1e-4, 1 - 1e-4)
    logit_normal = torch.special.expit(LOGIT_MEAN + LOGIT_STD * torch.special.ndtri(shares))
    uniform = torch.rand(count, generator=generator, device=generator.device)
    is_uniform = torch.rand(count, generator=generator, device=generator.device) < UNIFORM_SHARE
    return (torch.where(is_uniform, uniform, logit_normal) * steps).long().clamp(max=steps - 1)


def _evenly_spaced(count: int, generator: torch.Generator) -> Tensor:
    shift = torch.rand(1, generator=generator, device=generator.device)
    return (shift + torch.arange(count, device=generator.device) / count) % 1


def prediction_target(scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Return the target of the UNet: the noise, or v for v-prediction models."""
    if scheduler.config.prediction_type == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(latents, noise, times)
        return velocity
    return noise


def min_snr_weights(scheduler: DDIMScheduler, times: Tensor) -> Tensor:
    """Return the min-SNR weights (N,) of the squared errors at timesteps (N,).

    The weights are min(SNR, gamma) / SNR for noise prediction and min(SNR + 1, gamma) / (SNR + 1) for v-prediction,
    which weights the error of the image by min(SNR + 1, gamma). (kohya's scripts use min(SNR, gamma) / (SNR + 1), which
    gives the last step of a zero-terminal-SNR schedule a weight of 0.)
    """
    signal = scheduler.alphas_cumprod.to(times.device)[times]
    if scheduler.config.prediction_type == "v_prediction":
        plus_one = 1 / (1 - signal).clamp(min=1e-8)  # SNR + 1 = a / (1 - a) + 1
        return plus_one.clamp(max=GAMMA) / plus_one
    snr = signal / (1 - signal).clamp(min=1e-8)
    return snr.clamp(max=GAMMA) / snr.clamp(min=1e-8)
