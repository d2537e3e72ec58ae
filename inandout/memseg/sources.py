"""Sources of an anomaly's pixels: a texture, or the transformed image.

Source: MemSeg (Yang, Wu and Feng 2023), section "anomaly simulation".
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from inandout.data.images import ImageArray, Mask
from inandout.memseg.operations import OPERATIONS
from inandout.memseg.texture_bank import TextureBank

N_OPERATIONS = 3
"""Number of different operations applied to an image before its tiles are shuffled."""
MIN_CROP = 0.5
"""Minimum share of a texture's width and height that is cropped and stretched over the image."""


class Box(NamedTuple):
    """Rectangle of pixels; left and top are inclusive, right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in an array (H, W) or (H, W, 3)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def bounding_box(mask: Mask) -> Box:
    """Return the bounding box of the true pixels of a non-empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def texture_source(textures: TextureBank, width: int, height: int, box: Box, rng: np.random.Generator) -> ImageArray:
    """Stretch a random crop of a random texture over a width x height image, and return its `box`.

    MemSeg stretches the whole texture. Crops and flips add variety to a small bank.
    """
    texture = textures.texture(int(rng.integers(len(textures))))
    share = rng.uniform(MIN_CROP, 1, 2)
    start = rng.uniform(0, 1 - share)
    size = np.array(texture.size)
    first = (start + share * (box.left / width, box.top / height)) * size
    last = np.minimum((start + share * (box.right / width, box.bottom / height)) * size, size)
    shape = (box.right - box.left, box.bottom - box.top)
    stretched = np.asarray(texture.resize(shape, Image.Resampling.BILINEAR, box=(*first.tolist(), *last.tolist())))
    flip_y, flip_x = rng.choice([-1, 1], 2).tolist()
    return stretched[::flip_y, ::flip_x]


def structure_source(image: ImageArray, grid: int, box: Box, rng: np.random.Generator) -> ImageArray:
    """Apply 3 of the ten operations to the image, shuffle its tiles, and return its `box`."""
    transformed = Image.fromarray(image)
    for index in rng.choice(len(OPERATIONS), N_OPERATIONS, replace=False):
        transformed = OPERATIONS[index](transformed, rng)
    return shuffle_tiles(np.asarray(transformed), grid, rng)[box.slices]


def shuffle_tiles(image: ImageArray, grid: int, rng: np.random.Generator) -> ImageArray:
    """Shuffle the grid x grid tiles of an image.

    If `grid` does not divide a side, tile sizes differ by one pixel, and a moved tile is cropped or extended to the
    size of its new position. A side of fewer than `grid` pixels has tiles of one pixel.
    """
    height, width = image.shape[:2]
    rows, columns = min(grid, height), min(grid, width)
    y = [i * height // rows for i in range(rows + 1)]
    x = [i * width // columns for i in range(columns + 1)]
    shuffled = np.empty_like(image)
    for target, tile in enumerate(rng.permutation(rows * columns).tolist()):
        (i, j), (k, m) = divmod(target, columns), divmod(tile, columns)
        tall, wide = y[i + 1] - y[i], x[j + 1] - x[j]
        top, left = min(y[k], height - tall), min(x[m], width - wide)
        shuffled[y[i] : y[i + 1], x[j] : x[j + 1]] = image[top : top + tall, left : left + wide]
    return shuffled
