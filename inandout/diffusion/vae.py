"""Convert images to the latents of a VAE and back."""

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor
from torch.nn.functional import max_pool2d

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
    return _encode(vae, to_tensor(images))


def _encode(vae: AutoencoderTiny | AutoencoderKL, pixels: Tensor) -> Tensor:
    encoded = vae.encode(pixels.to(vae.device))
    latents: Tensor = encoded.latent_dist.mode() if isinstance(vae, AutoencoderKL) else encoded.latents
    return latents * vae.config.scaling_factor


@torch.no_grad()
def encode_masked(
    vae: AutoencoderTiny | AutoencoderKL, images: ImageBatch, masks: npt.NDArray[np.bool_]
) -> Tensor:  # fmt: skip
    """Return the additional input (N, 1 + C, H/f, W/f) of an inpainting UNet: mask, and latents of the masked images.

    Args:
        vae: determines the device.
        images: (N, H, W, 3) uint8; sides are multiples of the VAE's factor.
        masks: (N, H, W), True where to draw. Masked pixels are grey; a latent is masked if any of its pixels is.
    """
    mask = torch.from_numpy(masks[:, None]).float()
    latents = _encode(vae, to_tensor(images) * (1 - mask)).float()
    return torch.cat([max_pool2d(mask, images.shape[1] // latents.shape[2]).to(latents.device), latents], dim=1)


@torch.no_grad()
def decode(vae: AutoencoderTiny | AutoencoderKL, latents: Tensor) -> ImageBatch:
    """Decode scaled latents (N, C, H/f, W/f) on the VAE's device to images (N, H, W, 3) uint8."""
    return to_images(vae.decode(latents / vae.config.scaling_factor).sample.float().cpu())
