"""What an anomaly is filled with: a texture, or the structure of the image itself.

Source: MemSeg (Yang, Wu and Feng 2023), section "anomaly simulation".
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from inandout.data.images import ImageArray, Mask
from inandout.memseg.operations import OPERATIONS
from inandout.memseg.texture_bank import TextureBank

N_OPERATIONS = 3
"""Different operations applied to an image before its tiles are shuffled."""
LEAST_CROP = 0.5
"""A texture is cut to this share of its width and height, or more, before it is stretched over the image."""


class Box(NamedTuple):
    """A rectangle of pixels: left and top are inside, right and bottom are not."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in an (H, W) or (H, W, 3) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def bounding_box(mask: Mask) -> Box:
    """The smallest box around the true pixels of a mask that has some."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def texture_source(textures: TextureBank, width: int, height: int, box: Box, rng: np.random.Generator) -> ImageArray:
    """A random part of a random texture, stretched over a width x height image; only `box` of it is computed.

    MemSeg stretches the whole texture. The crop and the flips make a small bank go further.
    """
    texture = textures.texture(int(rng.integers(len(textures))))
    share = rng.uniform(LEAST_CROP, 1, 2)
    start = rng.uniform(0, 1 - share)
    size = np.array(texture.size)
    first = (start + share * (box.left / width, box.top / height)) * size
    last = np.minimum((start + share * (box.right / width, box.bottom / height)) * size, size)
    shape = (box.right - box.left, box.bottom - box.top)
    stretched = np.asarray(texture.resize(shape, Image.Resampling.BILINEAR, box=(*first.tolist(), *last.tolist())))
    flip_y, flip_x = rng.choice([-1, 1], 2).tolist()
    return stretched[::flip_y, ::flip_x]


def structure_source(image: ImageArray, grid: int, box: Box, rng: np.random.Generator) -> ImageArray:
    """The image after 3 different operations of ten, its tiles shuffled; cut to `box`."""
    turned = Image.fromarray(image)
    for index in rng.choice(len(OPERATIONS), N_OPERATIONS, replace=False):
        turned = OPERATIONS[index](turned, rng)
    return shuffle_tiles(np.asarray(turned), grid, rng)[box.slices]


def shuffle_tiles(image: ImageArray, grid: int, rng: np.random.Generator) -> ImageArray:
    """Cut an image into grid x grid tiles and put them back in a random order.

    Where a side is not divisible by `grid`, tiles differ by one pixel: a tile is then cut to, or goes on to, the size
    of the place it comes to. An image of fewer pixels than tiles on a side has tiles of one pixel there.
    """
    height, width = image.shape[:2]
    rows, columns = min(grid, height), min(grid, width)
    y = [i * height // rows for i in range(rows + 1)]
    x = [i * width // columns for i in range(columns + 1)]
    shuffled = np.empty_like(image)
    for place, tile in enumerate(rng.permutation(rows * columns).tolist()):
        (i, j), (k, m) = divmod(place, columns), divmod(tile, columns)
        tall, wide = y[i + 1] - y[i], x[j + 1] - x[j]
        top, left = min(y[k], height - tall), min(x[m], width - wide)
        shuffled[y[i] : y[i + 1], x[j] : x[j + 1]] = image[top : top + tall, left : left + wide]
    return shuffled
