"""Inpainting: draw inside a mask, such as a defect on a real part, and keep the pixels outside.

With an ordinary base, latents outside the mask are replaced after every step by those of the canvas at the next noise
level (blended latent diffusion, Avrahami 2023; RePaint, Lugmayr 2022, without resampling). An inpainting base (UNet
with 2 C + 1 input channels, as in DIAG, Girella 2024) also reads mask and masked latents; its latents are blended as
well.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from scipy import ndimage
from torch import Tensor

from inandout.data.colour import keep_grey
from inandout.data.images import ImageArray, ImageBatch, Mask
from inandout.diffusion.pipeline import Pipeline, is_inpainting
from inandout.diffusion.sample.quality_filter import RejectReason
from inandout.diffusion.sample.visible_change import MIN_VISIBLE_CHANGE, change
from inandout.diffusion.vae import encode, encode_masked
from inandout.errors import InputError

EDGE_SIGMA = 1.5
"""Standard deviation in px of the soft edge inside a mask."""


class Canvas(NamedTuple):
    """Images to draw on."""

    images: ImageBatch
    """(N, H, W, 3)."""
    masks: npt.NDArray[np.bool_]
    """(N, H, W): where to draw."""

    def part(self, start: int, stop: int) -> "Canvas":
        """Return the images and masks from `start` to `stop`."""
        return Canvas(self.images[start:stop], self.masks[start:stop])


class EncodedCanvas(NamedTuple):
    """A canvas as latents, used during sampling."""

    latents: Tensor
    """(N, C, h, w)."""
    noise: Tensor
    """(N, C, h, w): the initial noise of sampling, also added to the canvas's latents."""
    mask: Tensor
    """(N, 1, h, w): 1 if any pixel of a latent's patch is drawn."""
    conditioning: Tensor
    """(N, C + 1, h, w) additional input channels of an inpainting UNet, (N, 0, h, w) for an ordinary one."""

    def blend(
        self, latents: Tensor, time: Tensor | None, scheduler: DPMSolverMultistepScheduler | DDIMScheduler
    ) -> Tensor:
        """Replace latents outside the mask by the canvas's at the noise level of `time` (None: without noise)."""
        known = self.latents
        if time is not None:
            known = scheduler.add_noise(known, self.noise, time.expand(len(latents)))
        return torch.lerp(known, latents, self.mask)


def encode_canvas(pipeline: Pipeline, canvas: Canvas, noise: Tensor) -> EncodedCanvas:
    """Encode a canvas for `noise` (N, C, h, w), which covers it.

    Raises:
        InputError: images and masks differ in size, or a mask is empty.
    """
    if canvas.masks.shape != canvas.images.shape[:3]:
        raise InputError(f"masks {canvas.masks.shape} do not fit images {canvas.images.shape}; give equal sizes")
    if not canvas.masks.any(axis=(1, 2)).all():
        raise InputError("a mask is empty, so nothing would be drawn; give every image a mask with at least one pixel")
    factor = pipeline.vae_scale_factor
    padded = _pad_canvas(canvas, noise.shape[2] * factor, noise.shape[3] * factor)
    mask = torch.from_numpy(padded.masks[:, None]).float().to(noise.device)
    latent_mask = torch.nn.functional.max_pool2d(mask, factor)
    latents = encode(pipeline.vae, padded.images).float()
    conditioning = noise[:, :0]
    if is_inpainting(pipeline):
        conditioning = encode_masked(pipeline.vae, padded.images, padded.masks)
    return EncodedCanvas(latents, noise, latent_mask, conditioning)


def empty_canvas(pipeline: Pipeline, noise: Tensor) -> EncodedCanvas:
    """Return a canvas for whole images of an inpainting base: grey, and masked everywhere."""
    factor = pipeline.vae_scale_factor
    size = noise.shape[2] * factor, noise.shape[3] * factor
    images, masks = np.zeros((1, *size, 3), np.uint8), np.ones((1, *size), np.bool_)
    conditioning = encode_masked(pipeline.vae, images, masks).expand(len(noise), -1, -1, -1)
    return EncodedCanvas(torch.zeros_like(noise), noise, torch.ones_like(noise[:, :1]), conditioning)


def composite(canvas: Canvas, generated: ImageBatch) -> ImageBatch:
    """Paste generated images on the canvas (N, H, W, 3): identical outside the masks, with a soft edge inside.

    On images without colour, the generated images are converted to grey.
    """
    generated = keep_grey(canvas.images, generated)
    opacity = ndimage.gaussian_filter(canvas.masks.astype(np.float32), (0, EDGE_SIGMA, EDGE_SIGMA)) * canvas.masks
    opacity /= np.maximum(opacity.max(axis=(1, 2), keepdims=True), 1e-6)  # thin masks reach full opacity, too
    mixed = canvas.images + opacity[..., None] * (generated.astype(np.float32) - canvas.images)
    result: ImageBatch = np.rint(mixed).astype(np.uint8)
    return result


def find_fault(image: ImageArray, finite: bool, before: ImageArray, mask: Mask) -> RejectReason | None:
    """Return why an image (H, W, 3), inpainted inside a mask (H, W), must be rejected, or None."""
    if not finite:
        return "non-finite"
    return "unchanged" if change(image, before)[mask].mean() < MIN_VISIBLE_CHANGE else None


def _pad_canvas(canvas: Canvas, height: int, width: int) -> Canvas:
    """Pad a canvas on all sides to a size, images by repeating the edge, masks with False."""
    rows, columns = height - canvas.masks.shape[1], width - canvas.masks.shape[2]
    padding = ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
    return Canvas(np.pad(canvas.images, (*padding, (0, 0)), mode="edge"), np.pad(canvas.masks, padding))
