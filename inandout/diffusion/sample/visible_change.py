"""Where inpainting changed an image visibly."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from inandout.data.images import ImageArray, Mask

MIN_VISIBLE_CHANGE = 6.0
"""Change in grey levels of 0..255, of a pixel or on average inside a mask, below which it is not visible."""


def change(image: ImageArray, before: ImageArray) -> npt.NDArray[np.int16]:
    """Return the greatest difference of a channel, (H, W), of two images (H, W, 3)."""
    greatest: npt.NDArray[np.int16] = np.abs(image.astype(np.int16) - before).max(axis=2)
    return greatest


def find_changed(image: ImageArray, before: ImageArray) -> Mask:
    """Return where two images (H, W, 3) differ visibly, (H, W), without holes: the mask of a defect from its effect."""
    changed: Mask = ndimage.binary_fill_holes(change(image, before) >= MIN_VISIBLE_CHANGE)
    return changed
