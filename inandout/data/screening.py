"""Recognise images without content: black, flat or saturated."""

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


def blank_reason(image: ImageArray) -> Literal["black", "flat"] | None:
    """Return why an image (H, W, 3) shows nothing, or None."""
    grey: npt.NDArray[np.uint8] = np.asarray(Image.fromarray(image).convert("L"))
    if np.count_nonzero(grey < BLACK_LEVEL) >= 0.99 * grey.size:
        return "black"
    return "flat" if grey.std() < FLAT_STD else None


def is_saturated(image: ImageArray) -> bool:
    """Return whether most of an image (H, W, 3) is overexposed."""
    return bool((image.min(axis=2) >= SATURATED_LEVEL).mean() > SATURATED_SHARE)
