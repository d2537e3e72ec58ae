"""Load images of one size as a uint8 array, in memory or memory-mapped."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from inandout.data.config import Geometry
from inandout.data.file_cache import FileCache
from inandout.data.geometry import fit_image
from inandout.data.images import ImageArray, read_image
from inandout.errors import InputError

MEMORY_LIMIT = 2 * 1024**3
"""Size in bytes above which the images are memory-mapped from a temporary file."""

CACHE_BYTES = 256 * 1024**2
"""Size in bytes of the cache of fitted images, shared by all trainings of the process."""

Number = TypeVar("Number", bound=np.generic)

Pixels = npt.NDArray[np.uint8]
"""(N, H, W, 3) RGB, 0..255."""

_FITTED: FileCache[ImageArray] = FileCache(CACHE_BYTES, lambda image: image.nbytes)


def load_pixels(paths: Sequence[Path], geometry: Geometry, memory_limit: int = MEMORY_LIMIT) -> Pixels:
    """Decode all images and fit them to one size.

    Returns:
        (N, H, W, 3) uint8, in the order of `paths`.

    Raises:
        InputError: an image cannot be read, or the temporary folder has too little free space.
    """
    pixels = allocate((len(paths), geometry.height, geometry.width, 3), np.uint8, memory_limit)
    loaded = _FITTED.each(paths, lambda path: fit_image(read_image(path), geometry), geometry)
    for index, image in tqdm(loaded, "decode", len(paths), unit="image", disable=None, delay=5):
        pixels[index] = image
    return pixels


def allocate(shape: tuple[int, ...], dtype: type[Number], memory_limit: int = MEMORY_LIMIT) -> npt.NDArray[Number]:
    """Return an uninitialised array, memory-mapped from a temporary file above `memory_limit` bytes.

    Raises:
        InputError: the temporary folder has too little free space.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size <= memory_limit:
        return np.empty(shape, dtype)
    folder = tempfile.gettempdir()
    try:
        # The mapping keeps the unlinked file alive, and no file remains if the process is killed.
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk under a sparse file raises SIGBUS
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "w+", shape=shape)
    except OSError as error:
        raise InputError(
            f"the images need {-(-size // 10**6)} MB in {folder} ({error.strerror}); free disk space or set TMPDIR"
        ) from error
