"""The DreamBooth loss (Ruiz et al. 2023) with min-SNR weights (Hang et al. 2023)."""

from diffusers import DDIMScheduler
from torch import Tensor

from inandout.diffusion.snr_weighting import min_snr_weights, prediction_target


def denoising_errors(
    scheduler: DDIMScheduler,
    predicted: Tensor,
    latents: Tensor,
    noise: Tensor,
    times: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the mean squared errors (N,) of a UNet's predictions, weighted by min-SNR.

    Args:
        scheduler: the base's scheduler; determines whether the UNet predicts noise or v.
        predicted: (N, C, h, w).
        latents: (N, C, h, w), without noise.
        noise: (N, C, h, w), the added noise.
        times: (N,) timesteps.
        weights: (N, 1, h, w), multiplied by the squared errors; None = 1.
    """
    squares = (predicted.float() - prediction_target(scheduler, latents, noise, times)).square()
    squares = squares if weights is None else squares * weights
    return squares.mean(dim=(1, 2, 3)) * min_snr_weights(scheduler, times)


def dreambooth_loss(errors: Tensor, prior: Tensor, prior_weight: float, valid: Tensor) -> Tensor:
    """Return the sum of the errors of instance images plus `prior_weight` times that of prior images.

    Args:
        errors: (N,), from `denoising_errors`.
        prior: (N,), 1 for images of the class prompt, 0 for images of the product.
        prior_weight: 0 or more.
        valid: (N,), 0 for images that pad the share of a process, else 1.
    """
    weights = (valid * (1 + (prior_weight - 1) * prior)).to(errors.device)
    return (errors * weights).sum()
