"""Draw in a window around each mask, enlarged to the size of the image, as `padding_mask_crop` of diffusers does.

A small defect then has as many pixels as the model draws well.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from inandout.data.images import ImageBatch, Mask
from inandout.diffusion.sample.inpaint import Canvas, composite


class Window(NamedTuple):
    """A part of an image, in px; the ends are not included."""

    left: int
    top: int
    right: int
    bottom: int


def find_window(mask: Mask, padding: int) -> Window:
    """Return the smallest window with the aspect ratio of a mask (H, W) around its pixels and a margin of `padding` px.

    It lies inside the image. The mask is not empty.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    needed = columns[-1] - columns[0] + 1 + 2 * padding, rows[-1] - rows[0] + 1 + 2 * padding
    scale = min(max(needed[0] / width, needed[1] / height), 1)
    size = min(round(scale * width) or 1, width), min(round(scale * height) or 1, height)
    centre = (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2
    left, top = (
        int(np.clip(round(middle - side / 2), 0, limit - side))
        for middle, side, limit in zip(centre, size, (width, height), strict=True)
    )
    return Window(left, top, left + size[0], top + size[1])


def enlarge(canvas: Canvas, windows: Sequence[Window]) -> Canvas:
    """Return the windows of a canvas, enlarged to its size."""
    size = canvas.masks.shape[2], canvas.masks.shape[1]
    images = [
        np.asarray(Image.fromarray(image).crop(window).resize(size, Image.Resampling.LANCZOS))
        for image, window in zip(canvas.images, windows, strict=True)
    ]
    masks = [
        np.asarray(Image.fromarray(mask).crop(window).resize(size, Image.Resampling.NEAREST))
        for mask, window in zip(canvas.masks, windows, strict=True)
    ]
    return Canvas(np.stack(images), np.stack(masks))


def paste(canvas: Canvas, windows: Sequence[Window], drawn: ImageBatch) -> ImageBatch:
    """Return the canvas with images (N, H, W, 3) that were drawn on its enlarged windows inside the masks."""
    whole = canvas.images.copy()
    for image, window, content in zip(whole, windows, drawn, strict=True):
        size = window.right - window.left, window.bottom - window.top
        small = Image.fromarray(content).resize(size, Image.Resampling.LANCZOS)
        image[window.top : window.bottom, window.left : window.right] = np.asarray(small)
    return composite(canvas, whole)
