"""Masks that the diffusion model draws: where an image with the defect differs from the image without it.

After DiffEdit (Couairon 2023, section 3.2), which compares predictions of noise; here two finished images from the same
noise are compared. Inside such a mask, inpainting has the place and the shape that the model gives to the defect.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from inandout.data.images import ImageBatch
from inandout.diffusion.pipeline import Pipeline
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.guidance import Composition
from inandout.diffusion.sample.sampler import sample

MIN_SHARE_OF_MAXIMUM = 0.4
"""A pixel belongs to the defect if its difference is at least this share of the greatest difference of the image."""
SIDE = 64
"""Shorter side in px of an image for which the differences are smoothed with a standard deviation of 1 px, and the mask
grows by 2 px. Both are proportional to the shorter side."""


def draw_masks(
    pipeline: Pipeline,
    composition: Composition,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    width: int,
    height: int,
    config: SamplingConfig,
    clip_skip: int = 1,
) -> npt.NDArray[np.bool_]:
    """Draw one mask (N, H, W) per prompt and seed; none is empty. Arguments and errors are those of `sample`."""

    def draw(texts: Sequence[str], config: SamplingConfig, composition: Composition | None) -> ImageBatch:
        batches = sample(
            pipeline, texts, seeds, width=width, height=height, config=config, clip_skip=clip_skip,
            composition=composition,
        )  # fmt: skip
        return np.concatenate([batch.images for batch in batches])

    good = [composition.instance_prompt] * len(prompts)
    without = draw(good, config.model_copy(update={"guidance": 1.0}), None)
    return find_difference(draw(prompts, config, composition), without)


def find_difference(with_defect: ImageBatch, without: ImageBatch) -> npt.NDArray[np.bool_]:
    """Return where images (N, H, W, 3) differ most, (N, H, W), with a margin; everywhere if they are equal."""
    difference = np.abs(with_defect.astype(np.float32) - without).max(axis=3)
    scale = min(difference.shape[1:]) / SIDE
    smooth = ndimage.gaussian_filter(difference, (0, scale, scale))
    limit = MIN_SHARE_OF_MAXIMUM * smooth.max(axis=(1, 2), keepdims=True)
    margin = max(1, round(2 * scale))
    cross = ndimage.generate_binary_structure(2, 1)[None]
    grown: npt.NDArray[np.bool_] = ndimage.binary_dilation(smooth >= limit, cross, iterations=margin)
    return grown
