"""Greyscale images. Synthetic defects on them stay grey, or colour alone would reveal them."""

import numpy as np
import numpy.typing as npt

from inandout.data.images import ImageArray


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
