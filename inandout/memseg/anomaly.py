"""Synthetic anomalies on defect-free images, after MemSeg (Yang, Wu and Feng 2023)."""

from typing import NamedTuple

import numpy as np

from inandout.data.colour import is_grey, without_colour
from inandout.data.images import ImageArray, Mask
from inandout.errors import InputError
from inandout.memseg.config import MemSegConfig
from inandout.memseg.masks import area_limits, draw_mask, find_foreground
from inandout.memseg.sources import Box, bounding_box, structure_source, texture_source
from inandout.memseg.texture_bank import TextureBank, open_textures

MIN_CHANGE = 6.0
"""Minimum mean change of a visible anomaly, in levels of 0..255. Fainter ones are drawn again, 3 % on magnetic tiles.
The minimum opacity of a configuration, 0.05, can reach it."""
MAX_DRAWS = 8
"""Maximum draws of source and opacity; after them the pixels are blended with black or white, whichever is farther."""


class Anomaly(NamedTuple):
    """An image with a synthetic anomaly, and its mask."""

    image: ImageArray
    mask: Mask


def synthesise(image: ImageArray, seed: int, config: MemSegConfig, textures: TextureBank | None = None) -> Anomaly:
    """Draw one anomaly; the result depends on the arguments only.

    Args:
        image: (H, W, 3) uint8 without a defect.
        seed: 0 or more.
        config: mask limits, opacity and sources.
        textures: texture bank, see `open_textures`; None = open `config.textures` on every call.

    Returns:
        The image, visibly changed inside the mask and bit-identical outside. The share of the foreground that the mask
        covers is within the limits of `config`.

    Raises:
        InputError: `image` has another shape or dtype, `seed` is negative, the foreground is too small for the limits,
            or a texture cannot be read.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"the image is {image.shape} {image.dtype}; it must be (H, W, 3) uint8")
    if seed < 0:
        raise InputError(f"seed = {seed}; it must be 0 or more")
    rng = np.random.default_rng(seed)
    textures = open_textures(config.textures) if textures is None else textures
    height, width = image.shape[:2]
    foreground = find_foreground(image, config.mask)
    pixels = height * width if foreground is None else int(np.count_nonzero(foreground))
    mask = draw_mask(width, height, foreground, area_limits(pixels, config.mask), rng)
    changed = image.copy()
    changed.reshape(-1, 3)[np.flatnonzero(mask)] = _draw_pixels(image, mask, config, textures, rng)
    return Anomaly(changed, mask)


def _draw_pixels(
    image: ImageArray, mask: Mask, config: MemSegConfig, textures: TextureBank, rng: np.random.Generator
) -> ImageArray:
    """Return new colours (area, 3) for the pixels of the mask, visibly different from the old ones."""
    box = bounding_box(mask)
    inside = np.flatnonzero(mask[box.slices])
    old = image[box.slices].reshape(-1, 3).take(inside, axis=0)
    grey = config.keep_grey and is_grey(image)
    for _ in range(MAX_DRAWS):
        new = _draw_source(image, box, config, textures, rng).reshape(-1, 3).take(inside, axis=0)
        if grey:
            new = without_colour(new)
        opacity = rng.uniform(config.opacity_min, config.opacity_max)
        blended = blend(old, new, opacity)
        if _mean_change(old, blended) >= MIN_CHANGE:
            return blended
    return blend(old, np.where(old < 128, 255, 0).astype(np.uint8), opacity)


def _draw_source(
    image: ImageArray, box: Box, config: MemSegConfig, textures: TextureBank, rng: np.random.Generator
) -> ImageArray:
    height, width = image.shape[:2]
    if rng.random() < config.texture_share:
        return texture_source(textures, width, height, box, rng)
    return structure_source(image, config.grid, box, rng)


def blend(old: ImageArray, new: ImageArray, opacity: float) -> ImageArray:
    """Return opacity * new + (1 - opacity) * old, rounded."""
    weight = np.float32(opacity)
    mixed = old + weight * (new.astype(np.float32) - old)
    return np.rint(mixed).astype(np.uint8)


def _mean_change(old: ImageArray, new: ImageArray) -> float:
    """Return the mean over pixels of the maximum change over channels, 0..255."""
    red, green, blue = np.abs(new.astype(np.int16) - old).T
    return float(np.maximum(np.maximum(red, green), blue).mean())
