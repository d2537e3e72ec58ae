"""Images through the VAE and back: what a generator does to an image even where it draws nothing."""

import numpy as np
from diffusers import StableDiffusionPipeline

from inandout.data.colour import keep_grey
from inandout.data.images import ImageBatch
from inandout.diffusion.vae import decode, encode

BATCH = 8
"""Images that go through at once."""


def round_trip(pipeline: StableDiffusionPipeline, images: ImageBatch) -> ImageBatch:
    """Encode and decode images (N, H, W, 3), which keep size and, where they have no colour, grey.

    As in `sample`, what the VAE cannot make is made up to one of its patches larger, and the middle is cut out.
    """
    height, width = images.shape[1:3]
    top, bottom = _margins(height, pipeline.vae_scale_factor)
    left, right = _margins(width, pipeline.vae_scale_factor)
    wide = np.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="edge")
    batches = (wide[start : start + BATCH] for start in range(0, len(wide), BATCH))
    back = np.concatenate([decode(pipeline.vae, encode(pipeline.vae, batch)) for batch in batches])
    return keep_grey(images, back[:, top : top + height, left : left + width])


def _margins(side: int, factor: int) -> tuple[int, int]:
    """Pixels before and after that make `side` a multiple of `factor`."""
    missing = -side % factor
    return missing // 2, missing - missing // 2
