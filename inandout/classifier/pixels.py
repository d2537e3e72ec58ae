"""Images decoded once, fitted to one size and held as uint8: 3 bytes a pixel, on disk above a size."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from inandout.data.file_cache import FileCache
from inandout.data.geometry import Geometry, fit_image
from inandout.data.images import ImageArray, read_image
from inandout.errors import InputError

MEMORY_LIMIT = 2 * 1024**3
"""Bytes above which the images are memory-mapped from a temporary file instead of held in memory."""

REMEMBERED = 256 * 1024**2
"""Bytes of fitted images that the process keeps, so that the next training on them need not decode them again."""

Pixels = npt.NDArray[np.uint8]
"""(N, H, W, 3) RGB, 0..255."""

_FITTED: FileCache[ImageArray] = FileCache(REMEMBERED, lambda image: image.nbytes)


def load_pixels(paths: Sequence[Path], geometry: Geometry, memory_limit: int = MEMORY_LIMIT) -> Pixels:
    """Decode and fit every image, in order, to (N, H, W, 3) uint8.

    Raises:
        InputError: an image cannot be read, or the temporary folder has no room for all of them.
    """
    pixels = _allocate((len(paths), geometry.height, geometry.width, 3), memory_limit)
    loaded = _FITTED.each(paths, lambda path: fit_image(read_image(path), geometry), geometry)
    for index, image in tqdm(loaded, "decode", len(paths), unit="image", disable=None, delay=5):
        pixels[index] = image
    return pixels


def _allocate(shape: tuple[int, ...], memory_limit: int) -> Pixels:
    size = int(np.prod(shape, dtype=np.int64))
    if size <= memory_limit:
        return np.empty(shape, np.uint8)
    folder = tempfile.gettempdir()
    try:
        # The mapping keeps the unlinked file alive, and no kill leaves it behind.
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a hole in the file that finds the disk full later kills by SIGBUS
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.uint8, "w+", shape=shape)
    except OSError as error:
        raise InputError(
            f"the images need {-(-size // 10**6)} MB in {folder} ({error.strerror}); free space or set TMPDIR"
        ) from error
