"""Windows: parts of an image that diffusion learns or draws at another size, and pastes back.

A base draws best at the size that it was trained on. A small defect has more pixels in an enlarged window, and a window
of a large image costs less than the image. After `padding_mask_crop` of diffusers, which DIAG (Girella 2024) uses.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import label

from inandout.data.config import Geometry
from inandout.data.geometry import fit_mask
from inandout.data.images import ImageArray, ImageBatch, Mask
from inandout.diffusion.pipeline import Pipeline
from inandout.diffusion.sample.inpaint import Canvas
from inandout.errors import InputError

_MARGIN = 16
"""Ratio of the side of a window and of the margin at its edges."""


class Window(NamedTuple):
    """A part of an image, in px; the ends are not included."""

    left: int
    top: int
    right: int
    bottom: int

    def slices(self) -> tuple[slice, slice]:
        """Return the rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def size(self) -> tuple[int, int]:
        """Return (width, height)."""
        return self.right - self.left, self.bottom - self.top


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


def window_around(mask: Mask, side: int) -> Window:
    """Return a square around the pixel of a mask (H, W) nearest to the centre of its box; the mask is not empty.

    If the connected part of the mask at this pixel does not fit with the margin of `inset`, the square is larger than
    `side` and lies around the box of this part. The square lies inside the image. Its side is at most the shorter side
    of the image.
    """
    points = np.argwhere(mask)
    middle = (points.min(axis=0) + points.max(axis=0)) // 2
    row, column = points[np.square(points - middle).sum(axis=1).argmin()]
    parts, _ = label(mask, np.ones((3, 3)))
    part = np.argwhere(parts == parts[row, column])
    low, high = part.min(axis=0), part.max(axis=0)
    box = (high - low + 2).max()  # one pixel more, because the centre may lie between two
    needed = math.ceil(box / (1 - 2 / _MARGIN))
    if needed > side:
        (row, column), side = (low + high + 1) // 2, needed
    return _square(mask.shape, side, int(row), int(column))


def random_window(shape: tuple[int, int], side: int, foreground: Mask | None, rng: np.random.Generator) -> Window:
    """Return a square around a random pixel of the foreground (H, W), or of an image of this shape if it is None."""
    height, width = shape
    pixels = np.arange(height * width) if foreground is None else np.flatnonzero(foreground)
    row, column = divmod(int(rng.choice(pixels)), width) if len(pixels) else (height // 2, width // 2)
    return _square(shape, side, row, column)


def _square(shape: tuple[int, ...], side: int, row: int, column: int) -> Window:
    side = min(side, *shape)
    top, left = (int(np.clip(at - side // 2, 0, room - side)) for at, room in zip((row, column), shape, strict=True))
    return Window(left, top, left + side, top + side)


def cut(image: ImageArray, window: Window, size: tuple[int, int]) -> ImageArray:
    """Return a window of an image (H, W, 3), resized to (width, height)."""
    return np.asarray(Image.fromarray(image).crop(window).resize(size, Image.Resampling.LANCZOS))


def cut_mask(mask: Mask, window: Window, size: tuple[int, int]) -> Mask:
    """Return a window of a mask (H, W), resized to (width, height); every pixel of it survives."""
    return fit_mask(mask[window.slices()], Geometry.model_construct(width=size[0], height=size[1], fit="stretch"))


def place_mask(mask: Mask, window: Window, shape: tuple[int, int]) -> Mask:
    """Return a mask (height, width) of `shape` that is `mask` in the window, resized to it, and empty elsewhere."""
    whole = np.zeros(shape, bool)
    whole[window.slices()] = cut_mask(mask, Window(0, 0, mask.shape[1], mask.shape[0]), window.size())
    return whole


def inset(mask: Mask, window: Window) -> Mask:
    """Return a mask (H, W) without its pixels near an edge of the window where the image goes on.

    A defect that reaches such an edge would end there in a straight line; with a margin of 1/16 of the window's side,
    diffusion sees the good part behind it. A mask that has no other pixels is unchanged.
    """
    height, width = mask.shape
    margin = max(min(window.size()) // _MARGIN, 1)
    rows = slice(window.top + margin * (window.top > 0), window.bottom - margin * (window.bottom < height))
    columns = slice(window.left + margin * (window.left > 0), window.right - margin * (window.right < width))
    kept = np.zeros_like(mask)
    kept[rows, columns] = mask[rows, columns]
    return kept if kept.any() else mask


def enlarge(canvas: Canvas, windows: Sequence[Window], size: tuple[int, int]) -> Canvas:
    """Return the windows of a canvas, resized to (width, height)."""
    images = [cut(image, window, size) for image, window in zip(canvas.images, windows, strict=True)]
    masks = [cut_mask(mask, window, size) for mask, window in zip(canvas.masks, windows, strict=True)]
    return Canvas(np.stack(images), np.stack(masks))


def paste(canvas: Canvas, windows: Sequence[Window], drawn: ImageBatch) -> ImageBatch:
    """Return the canvas with images (N, H, W, 3), drawn on its resized windows, inside the masks; edges are theirs."""
    whole = canvas.images.copy()
    for image, mask, window, content in zip(whole, canvas.masks, windows, drawn, strict=True):
        inside = mask[window.slices()]
        small = np.asarray(Image.fromarray(content).resize(window.size(), Image.Resampling.LANCZOS))
        image[window.slices()][inside] = small[inside]
    return whole
