"""A synthetic anomaly on an image without a defect, as MemSeg makes them (Yang, Wu and Feng 2023)."""

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
"""An anomaly that changes its pixels by less than this on average, of 255 levels, cannot be seen and is drawn again:
3 % of them, on magnetic tiles. The least opacity allowed in a configuration, 0.05, still reaches it."""
MAX_DRAWS = 8
"""Draws of source and opacity before the pixels are moved towards black or white, whichever is farther."""


class Anomaly(NamedTuple):
    """An image with a synthetic anomaly, and where it is."""

    image: ImageArray
    mask: Mask


def synthesise(
    image: ImageArray, seed: int, config: MemSegConfig, textures: TextureBank | None = None
) -> Anomaly:  # fmt: skip
    """Draw one anomaly. The result depends on nothing but the arguments.

    Args:
        image: (H, W, 3) uint8 without a defect.
        seed: 0 or more.
        config: how anomalies are drawn.
        textures: opened bank; None = open `config.textures`, which lists its folder on every call.

    Returns:
        The image, changed visibly inside the mask and bit-identical outside; the area of the mask, as a share of the
        foreground, is within the limits of `config`.

    Raises:
        InputError: not an image, a negative seed, a foreground too small for the limits, or an unreadable texture.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(f"an image must be (H, W, 3) uint8; this one is {image.shape} {image.dtype}")
    if seed < 0:
        raise InputError(f"seed = {seed} was given; it must be 0 or more")
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
    """New colours for the pixels of the mask, visibly different from the old: (area, 3)."""
    box = bounding_box(mask)
    inside = np.flatnonzero(mask[box.slices])
    old = image[box.slices].reshape(-1, 3).take(inside, axis=0)
    colourless = config.keep_grey and is_grey(image)
    for _ in range(MAX_DRAWS):
        new = _draw_source(image, box, config, textures, rng).reshape(-1, 3).take(inside, axis=0)
        if colourless:
            new = without_colour(new)
        opacity = rng.uniform(config.opacity_min, config.opacity_max)
        blended = blend(old, new, opacity)
        if _change(old, blended) >= MIN_CHANGE:
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
    """opacity * new + (1 - opacity) * old, rounded."""
    weight = np.float32(opacity)
    mixed = old + weight * (new.astype(np.float32) - old)
    return np.rint(mixed).astype(np.uint8)


def _change(old: ImageArray, new: ImageArray) -> float:
    """Mean over the pixels of the greatest change of a channel, 0..255."""
    red, green, blue = np.abs(new.astype(np.int16) - old).T
    return float(np.maximum(np.maximum(red, green), blue).mean())
