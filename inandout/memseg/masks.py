"""Where an anomaly lies: Perlin noise above a threshold, never empty, never outside the limits of its area.

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
"""Noise above this is anomaly."""
MAX_EXPONENT = 5
"""Each axis has 2^k lattice cells, k uniform in 0..5."""
MAX_DEGREES = 90
"""The noise is turned by -90..90 degrees, uniform."""
MAX_DRAWS = 8
"""Draws of the noise before one is thresholded so that it fits. With the default limits 4 % fail, nearly all empty."""


class AreaLimits(NamedTuple):
    """Least and greatest number of pixels of an anomaly, both allowed."""

    least: int
    most: int


def find_foreground(image: ImageArray, config: MaskConfig) -> Mask | None:
    """(H, W) mask of the object, or none if the whole image is object. Grey is ITU-R 601 luma."""
    if config.foreground_threshold is None:
        return None
    brighter = luma(image) > config.foreground_threshold
    return brighter if config.foreground_is == "brighter" else ~brighter


def area_limits(pixels: int, config: MaskConfig) -> AreaLimits:
    """The limits of the area in whole pixels, for a foreground of that many pixels.

    Raises:
        InputError: no whole number of pixels, or only 0, is within the limits.
    """
    rounding = 1e-9
    least = max(1, math.ceil(config.min_area * pixels - rounding))
    most = math.floor(config.max_area * pixels + rounding)
    if least > most:
        raise InputError(
            f"the object covers {pixels} pixels of the image, too few for an anomaly of min_area = {config.min_area} "
            f"to max_area = {config.max_area} of it; change these limits or foreground_threshold = "
            f"{config.foreground_threshold}"
        )
    return AreaLimits(least, most)


def draw_mask(width: int, height: int, foreground: Mask | None, limits: AreaLimits, rng: np.random.Generator) -> Mask:
    """Draw an (H, W) mask within the foreground and the limits.

    Noise whose area does not fit is drawn again. After `MAX_DRAWS` the last one is thresholded at the quantile that
    gives the nearest area that fits, so that limits which fit rarely cost a bounded time and still hold.
    """
    for _ in range(MAX_DRAWS):
        noise = _draw_noise(width, height, rng)
        mask = noise > THRESHOLD if foreground is None else (noise > THRESHOLD) & foreground
        area = int(np.count_nonzero(mask))
        if limits.least <= area <= limits.most:
            return mask
    return _highest(noise, foreground, min(max(area, limits.least), limits.most))


def _draw_noise(width: int, height: int, rng: np.random.Generator) -> Noise:
    cells_x, cells_y = (2 ** rng.integers(0, MAX_EXPONENT, 2, endpoint=True)).tolist()
    degrees = rng.uniform(-MAX_DEGREES, MAX_DEGREES)
    return rotated_perlin_noise(width, height, cells_x, cells_y, degrees, rng)


def _highest(noise: Noise, foreground: Mask | None, count: int) -> Mask:
    """Mask of the `count` highest values of the noise within the foreground; of equal values, the first."""
    candidates = noise if foreground is None else np.where(foreground, noise, -np.inf)
    chosen = np.argsort(-candidates, axis=None, kind="stable")[:count]
    mask = np.zeros(noise.size, np.bool_)
    mask[chosen] = True
    return mask.reshape(noise.shape)
