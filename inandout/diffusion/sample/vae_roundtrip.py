"""Encode and decode images with the VAE, to show how a generator changes the parts it does not draw on."""

import numpy as np

from inandout.data.colour import keep_grey
from inandout.data.images import ImageBatch
from inandout.diffusion.pipeline import Pipeline
from inandout.diffusion.vae import decode, encode

BATCH = 8
"""Batch size."""


def round_trip(pipeline: Pipeline, images: ImageBatch) -> ImageBatch:
    """Encode and decode images (N, H, W, 3); size is kept, and so is grey of images without colour.

    As in `sample`, images are padded to a multiple of the VAE's patch size and cropped back.
    """
    height, width = images.shape[1:3]
    top, bottom = _margins(height, pipeline.vae_scale_factor)
    left, right = _margins(width, pipeline.vae_scale_factor)
    padded = np.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="edge")
    batches = (padded[start : start + BATCH] for start in range(0, len(padded), BATCH))
    decoded = np.concatenate([decode(pipeline.vae, encode(pipeline.vae, batch)) for batch in batches])
    return keep_grey(images, decoded[:, top : top + height, left : left + width])


def _margins(side: int, factor: int) -> tuple[int, int]:
    """Return the padding before and after that makes `side` a multiple of `factor`."""
    missing = -side % factor
    return missing // 2, missing - missing // 2
