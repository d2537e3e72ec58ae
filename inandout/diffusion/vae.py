"""Convert images to the latents of a VAE and back."""

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from inandout.data.images import ImageBatch


def to_tensor(images: ImageBatch) -> Tensor:
    """Convert (N, H, W, 3) in 0..255 to (N, 3, H, W) in -1..1, channels-last."""
    return torch.from_numpy(np.require(images, requirements=["C", "W"])).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_images(tensor: Tensor) -> ImageBatch:
    """Convert (N, 3, H, W) in -1..1 to (N, H, W, 3) uint8, rounded and clipped."""
    levels = tensor.detach().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())


@torch.no_grad()
def encode(vae: AutoencoderTiny | AutoencoderKL, images: ImageBatch) -> Tensor:
    """Encode images (N, H, W, 3) uint8 as latents (N, C, H/f, W/f), scaled for the UNet, on the VAE's device.

    For an `AutoencoderKL` the latents are the mode of its distribution.
    """
    encoded = vae.encode(to_tensor(images).to(vae.device))
    latents: Tensor = encoded.latent_dist.mode() if isinstance(vae, AutoencoderKL) else encoded.latents
    return latents * vae.config.scaling_factor


@torch.no_grad()
def decode(vae: AutoencoderTiny | AutoencoderKL, latents: Tensor) -> ImageBatch:
    """Decode scaled latents (N, C, H/f, W/f) on the VAE's device to images (N, H, W, 3) uint8."""
    return to_images(vae.decode(latents / vae.config.scaling_factor).sample.float().cpu())
