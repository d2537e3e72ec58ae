"""Draw only inside a mask, on an image that keeps its pixels outside: a defect on a real part.

With an ordinary base the latents outside the mask are put back after every step, at the noise of the next one (blended
latent diffusion, Avrahami 2023; RePaint, Lugmayr 2022, without its resampling). A base made for inpainting (UNet with
2 C + 1 channels, as DIAG uses, Girella 2024) reads mask and masked latents beside the noisy ones, and is held as well.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from scipy import ndimage
from torch import Tensor

from inandout.data.colour import keep_grey
from inandout.data.images import ImageArray, ImageBatch, Mask
from inandout.diffusion.base.inpainting import is_inpainting
from inandout.diffusion.sample.quality_filter import RejectReason
from inandout.diffusion.vae import encode
from inandout.errors import InputError

MIN_VISIBLE_CHANGE = 6.0
"""Mean change of the pixels of a mask, in grey levels of 255, below which nothing new can be seen there."""
EDGE_SIGMA = 1.5
"""Standard deviation in px of the edge over which a drawn defect fades in, inside its mask."""


class Canvas(NamedTuple):
    """What is drawn on."""

    images: ImageBatch
    """(N, H, W, 3)."""
    masks: npt.NDArray[np.bool_]
    """(N, H, W): where something new is drawn."""

    def part(self, start: int, stop: int) -> "Canvas":
        """Some of them."""
        return Canvas(self.images[start:stop], self.masks[start:stop])


class EncodedCanvas(NamedTuple):
    """A canvas as latents, while something is drawn on it."""

    latents: Tensor
    """(N, C, h, w)."""
    noise: Tensor
    """Likewise: what the drawing begins with, so that outside the mask one image loses one and the same noise."""
    mask: Tensor
    """(N, 1, h, w): 1 where any pixel of a latent's patch is drawn."""
    beside: Tensor
    """(N, C + 1, h, w) that an inpainting UNet reads beside noisy latents, (N, 0, h, w) for an ordinary one."""

    def keep(
        self, latents: Tensor, time: Tensor | None, scheduler: DPMSolverMultistepScheduler | DDIMScheduler
    ) -> Tensor:
        """The same latents, outside the mask those of the canvas at the noise of `time`; None is without any."""
        known = self.latents
        if time is not None:
            known = scheduler.add_noise(known, self.noise, time.expand(len(latents)))
        return torch.lerp(known, latents, self.mask)


def encode_canvas(pipeline: StableDiffusionPipeline, canvas: Canvas, noise: Tensor) -> EncodedCanvas:
    """Latents of a canvas for `noise` (N, C, h, w), which covers it.

    Raises:
        InputError: images and masks differ in size, or a mask is empty.
    """
    if canvas.masks.shape != canvas.images.shape[:3]:
        raise InputError(f"masks {canvas.masks.shape} do not fit images {canvas.images.shape}")
    if not canvas.masks.any(axis=(1, 2)).all():
        raise InputError("a mask is empty, so that nothing would be drawn; every image needs a mask with some pixel")
    factor = pipeline.vae_scale_factor
    wide = _widened(canvas, noise.shape[2] * factor, noise.shape[3] * factor)
    mask = torch.from_numpy(wide.masks[:, None]).float().to(noise.device)
    small = torch.nn.functional.max_pool2d(mask, factor)
    latents = encode(pipeline.vae, wide.images).float()
    beside = noise[:, :0]
    if is_inpainting(pipeline):
        blanked = np.where(wide.masks[..., None], np.uint8(128), wide.images)
        beside = torch.cat([small, encode(pipeline.vae, blanked).float()], dim=1)
    return EncodedCanvas(latents, noise, small, beside)


def composite(canvas: Canvas, drawn: ImageBatch) -> ImageBatch:
    """What was drawn, on the canvas: bit-identical outside the masks, with a soft edge inside them. (N, H, W, 3).

    On an image without colour, what was drawn loses its own.
    """
    drawn = keep_grey(canvas.images, drawn)
    share = ndimage.gaussian_filter(canvas.masks.astype(np.float32), (0, EDGE_SIGMA, EDGE_SIGMA)) * canvas.masks
    share /= np.maximum(share.max(axis=(1, 2), keepdims=True), 1e-6)  # a thin mask is drawn, too
    mixed = canvas.images + share[..., None] * (drawn.astype(np.float32) - canvas.images)
    pasted: ImageBatch = np.rint(mixed).astype(np.uint8)
    return pasted


def find_fault(image: ImageArray, finite: bool, before: ImageArray, mask: Mask) -> RejectReason | None:
    """What is wrong with an image (H, W, 3) that was drawn on another inside a mask (H, W)."""
    if not finite:
        return "non-finite"
    change = np.abs(image[mask].astype(np.int16) - before[mask]).max(axis=1).mean()
    return "unchanged" if change < MIN_VISIBLE_CHANGE else None


def _widened(canvas: Canvas, height: int, width: int) -> Canvas:
    """The canvas in the middle of an image of that size, its edges repeated, its masks not."""
    rows, columns = height - canvas.masks.shape[1], width - canvas.masks.shape[2]
    around = ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
    return Canvas(np.pad(canvas.images, (*around, (0, 0)), mode="edge"), np.pad(canvas.masks, around))
