"""Windows: squares of an image that diffusion learns or draws at the base's own size.

A base draws best at the size that it was trained on. A defect that covers a few pixels of a large image fills more of
a window, and a window costs less than the image. After the crops of DIAG's pipeline (Girella 2024).
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from inandout.data.config import Geometry
from inandout.data.geometry import fit_image, fit_mask
from inandout.data.images import ImageArray, Mask
from inandout.diffusion.pipeline import Pipeline
from inandout.diffusion.sample.inpaint import Canvas, composite
from inandout.errors import InputError


class Window(NamedTuple):
    """A square of an image, in px."""

    left: int
    top: int
    side: int


def own_size(pipeline: Pipeline) -> int:
    """Return the side in px of the images that a base was trained on.

    Raises:
        InputError: the UNet's configuration does not give it.
    """
    size = pipeline.unet.config.sample_size
    if not isinstance(size, int):
        raise InputError(f"window: the base's UNet has sample_size = {size}; give a base with a number, or no window")
    side: int = size * pipeline.vae_scale_factor
    return side


def window_around(mask: Mask, side: int) -> Window:
    """Return the window whose centre is nearest to the centre of the box of a mask (H, W), which is not empty.

    The side is that of the image if the image is smaller.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return _window(mask.shape, side, int(rows[0] + rows[-1]) // 2, int(columns[0] + columns[-1]) // 2)


def random_window(image: ImageArray, side: int, foreground: Mask | None, rng: np.random.Generator) -> Window:
    """Return a window around a random pixel of the foreground (H, W), or of the image (H, W, 3) if there is none."""
    height, width = image.shape[:2]
    pixels = np.arange(height * width) if foreground is None else np.flatnonzero(foreground)
    row, column = divmod(int(rng.choice(pixels)), width) if len(pixels) else (height // 2, width // 2)
    return _window((height, width), side, row, column)


def _window(shape: tuple[int, ...], side: int, row: int, column: int) -> Window:
    side = min(side, *shape)
    top, left = (int(np.clip(at - side // 2, 0, room - side)) for at, room in zip((row, column), shape, strict=True))
    return Window(left, top, side)


def crop(image: ImageArray, window: Window, side: int) -> ImageArray:
    """Return the window of an image (H, W, 3), resized to (side, side, 3)."""
    return fit_image(image[_slices(window)], _square(side))


def crop_mask(mask: Mask, window: Window, side: int) -> Mask:
    """Return the window of a mask (H, W), resized to (side, side)."""
    return fit_mask(mask[_slices(window)], _square(side))


def paste(image: ImageArray, window: Window, drawn: ImageArray, mask: Mask) -> tuple[ImageArray, Mask]:
    """Paste a drawn window (S, S, 3) on an image (H, W, 3).

    Args:
        image: the image that `crop` cut the window from.
        window: place of the window.
        drawn: the window after drawing.
        mask: (S, S), where it was drawn; other pixels of the image do not change.

    Returns:
        The image (H, W, 3) and its mask (H, W).
    """
    place, size = _slices(window), _square(window.side)
    small = np.asarray(Image.fromarray(drawn).resize((window.side, window.side), Image.Resampling.BILINEAR))
    result, whole_mask = image.copy(), np.zeros(image.shape[:2], bool)
    whole_mask[place] = fit_mask(mask, size)
    if window.side == len(drawn):
        result[place][whole_mask[place]] = small[whole_mask[place]]
    else:
        result[place] = composite(Canvas(image[place][None], whole_mask[place][None]), small[None])[0]
    return result, whole_mask


def _slices(window: Window) -> tuple[slice, slice]:
    return slice(window.top, window.top + window.side), slice(window.left, window.left + window.side)


def _square(side: int) -> Geometry:
    return Geometry.model_construct(width=side, height=side, fit="stretch")
