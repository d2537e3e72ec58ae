"""Colour and brightness of images.

Synthetic defects on greyscale images stay grey, or colour alone would reveal them. Images without content are black,
flat or saturated.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from inandout.data.images import ImageArray

BLACK_LEVEL = 16.0
"""Grey level below which 99 % of the pixels of a black image are.

The darkest of 4,600 procedural surfaces (black ceramic in dim light) has 44, the darkest of 1,338 photographs of
magnetic tiles 68. Images of NaN, or blackened by a safety checker, have 0."""

FLAT_STD = 0.75
"""Standard deviation of grey levels below which an image of any brightness is flat.

The smoothest of 4,600 procedural surfaces (black ceramic in even light) has 1.5, the smoothest magnetic tile 8.3. The
VAE of `surface-diffusion` gives 0.1 to 0.3 for a uniform grey and 0.2 for zero latents."""

SATURATED_LEVEL, SATURATED_SHARE = 250, 0.5
"""An image is saturated if more than this share of its pixels is at or above this grey level."""


def luma(pixels: ImageArray) -> npt.NDArray[np.uint8]:
    """Return the ITU-R 601 luma (...) of (..., 3) RGB, 0..255, rounded; exact for grey pixels."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    wide = pixels.astype(np.uint32)
    total = wide[..., 0] * weights[0] + wide[..., 1] * weights[1] + wide[..., 2] * weights[2]
    return ((total + 0x8000) >> 16).astype(np.uint8)


def is_grey(image: ImageArray) -> bool:
    """Return whether all (..., 3) RGB pixels are grey."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    return np.array_equal(red, green) and np.array_equal(green, blue)


def without_colour(pixels: ImageArray) -> ImageArray:
    """Convert (..., 3) RGB to grey, with the luma in every channel."""
    return np.repeat(luma(pixels)[..., None], 3, axis=-1)


def keep_grey(before: ImageArray, after: ImageArray) -> ImageArray:
    """Return (N, H, W, 3) `after`, converted to grey for each image that is grey in `before`."""
    grey = np.array([is_grey(image) for image in before], bool)
    return np.where(grey[:, None, None, None], without_colour(after), after)


def blank_reason(image: ImageArray) -> Literal["black", "flat"] | None:
    """Return why an image (H, W, 3) shows nothing, or None."""
    grey: npt.NDArray[np.uint8] = np.asarray(Image.fromarray(image).convert("L"))
    if np.count_nonzero(grey < BLACK_LEVEL) >= 0.99 * grey.size:
        return "black"
    return "flat" if grey.std() < FLAT_STD else None


def is_saturated(image: ImageArray) -> bool:
    """Return whether most of an image (H, W, 3) is overexposed."""
    return bool((image.min(axis=2) >= SATURATED_LEVEL).mean() > SATURATED_SHARE)
