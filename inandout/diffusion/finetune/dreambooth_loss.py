"""The DreamBooth loss (Ruiz et al. 2023) with min-SNR weights (Hang et al. 2023)."""

from diffusers import DDIMScheduler
from torch import Tensor

from inandout.diffusion.snr_weighting import min_snr_weights, prediction_target


def denoising_errors(
    scheduler: DDIMScheduler, predicted: Tensor, latents: Tensor, noise: Tensor, times: Tensor
) -> Tensor:
    """Mean squared errors (N,) of what a UNet predicted, weighted by min-SNR.

    Args:
        scheduler: of the base; says whether the UNet predicts noise or v.
        predicted: (N, C, h, w).
        latents: (N, C, h, w), without noise.
        noise: (N, C, h, w) that was added.
        times: (N,) timesteps.
    """
    errors = (predicted.float() - prediction_target(scheduler, latents, noise, times)).square().mean(dim=(1, 2, 3))
    return errors * min_snr_weights(scheduler, times)


def dreambooth_loss(errors: Tensor, prior: Tensor, prior_weight: float, counted: Tensor) -> Tensor:
    """Sum of the errors of instance images, and `prior_weight` times those of prior images (prior preservation).

    Args:
        errors: (N,), see `denoising_errors`.
        prior: (N,): 1 for images of the class prompt, 0 for those of the product.
        prior_weight: 0 or more.
        counted: (N,): 0 for images that fill up the share of a process, else 1.
    """
    weights = (counted * (1 + (prior_weight - 1) * prior)).to(errors.device)
    return (errors * weights).sum()
