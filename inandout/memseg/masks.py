"""Masks of anomalies: thresholded Perlin noise, never empty, within the area limits.

Source: MemSeg (Yang, Wu and Feng 2023), section "anomaly simulation", after DRAEM (Zavrtanik 2021).
"""

import math
from typing import NamedTuple

import numpy as np

from inandout.data.colour import luma
from inandout.data.images import ImageArray, Mask
from inandout.errors import InputError
from inandout.memseg.config import MaskConfig
from inandout.memseg.perlin import Noise, rotated_perlin_noise

THRESHOLD = 0.5
"""Threshold on the noise; pixels above it belong to the anomaly."""
MAX_EXPONENT = 5
"""Each axis has 2^k lattice cells, with k uniform in 0..5."""
MAX_DEGREES = 90
"""The noise is rotated by an angle uniform in -90..90 degrees."""
MAX_DRAWS = 8
"""Maximum draws of the noise; after them the threshold is adapted. With the default limits 4 % of the draws fail,
nearly all because they are empty."""


class AreaLimits(NamedTuple):
    """Minimum and maximum number of pixels of an anomaly, inclusive."""

    minimum: int
    maximum: int


def find_foreground(image: ImageArray, config: MaskConfig) -> Mask | None:
    """Return the mask (H, W) of the object by ITU-R 601 luma, or None if the whole image is the object."""
    if config.foreground_threshold is None:
        return None
    brighter = luma(image) > config.foreground_threshold
    return brighter if config.foreground_is == "brighter" else ~brighter


def area_limits(pixels: int, config: MaskConfig) -> AreaLimits:
    """Return the area limits in whole pixels for a foreground of `pixels` pixels.

    Raises:
        InputError: no positive whole number of pixels is within the limits.
    """
    rounding = 1e-9
    minimum = max(1, math.ceil(config.min_area * pixels - rounding))
    maximum = math.floor(config.max_area * pixels + rounding)
    if minimum > maximum:
        raise InputError(
            f"the object covers {pixels} pixels, too few for min_area = {config.min_area} and max_area = "
            f"{config.max_area}; change them or foreground_threshold = {config.foreground_threshold}"
        )
    return AreaLimits(minimum, maximum)


def draw_mask(width: int, height: int, foreground: Mask | None, limits: AreaLimits, rng: np.random.Generator) -> Mask:
    """Draw a mask (H, W) within the foreground and the area limits.

    Noise with an area outside the limits is drawn again. After `MAX_DRAWS` the last noise is thresholded at the
    quantile that gives the nearest allowed area, which bounds the run time for narrow limits.
    """
    for _ in range(MAX_DRAWS):
        noise = _draw_noise(width, height, rng)
        mask = noise > THRESHOLD if foreground is None else (noise > THRESHOLD) & foreground
        area = int(np.count_nonzero(mask))
        if limits.minimum <= area <= limits.maximum:
            return mask
    return _highest(noise, foreground, min(max(area, limits.minimum), limits.maximum))


def _draw_noise(width: int, height: int, rng: np.random.Generator) -> Noise:
    cells_x, cells_y = (2 ** rng.integers(0, MAX_EXPONENT, 2, endpoint=True)).tolist()
    degrees = rng.uniform(-MAX_DEGREES, MAX_DEGREES)
    return rotated_perlin_noise(width, height, cells_x, cells_y, degrees, rng)


def _highest(noise: Noise, foreground: Mask | None, count: int) -> Mask:
    """Return the mask of the `count` highest noise values within the foreground; ties go to the first pixels."""
    candidates = noise if foreground is None else np.where(foreground, noise, -np.inf)
    chosen = np.argsort(-candidates, axis=None, kind="stable")[:count]
    mask = np.zeros(noise.size, np.bool_)
    mask[chosen] = True
    return mask.reshape(noise.shape)
