"""Images out of a request, prepared exactly as in training. Everything is measured before it is decoded."""

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inandout.data.geometry import Geometry, fit_image
from inandout.data.images import MAX_PIXELS, ImageArray, decode_image
from inandout.errors import InputError

FOLDER = "INANDOUT_SERVE_FOLDER"
"""Environment variable of the server: a folder below which requests may name files. Without it none may."""
MAX_BYTES = 12 * 2**20
"""Of an encoded image."""
MAX_TEXT = 16 * 2**20
"""Characters of base64, which are 4 for 3 bytes."""
MAX_ROWS = 256
"""Images of a request."""


def prepare_rows(rows: list[dict[str, Any]], geometry: Geometry) -> np.ndarray:
    """Pixels (N, H, W, 3) of rows with `image` or `path`; the other is missing, None or NaN.

    Raises:
        InputError: no row, too many, or one whose image cannot be used; names the first, counted from 0.
    """
    if not 0 < len(rows) <= MAX_ROWS:
        raise InputError(f"{len(rows)} images in the request; send 1 to {MAX_ROWS}, each as image or path")
    return np.stack([fit_image(_image(row, f"image {i}"), geometry) for i, row in enumerate(rows)])


def _image(row: Mapping[str, Any], name: str) -> ImageArray:
    given = {key: row[key] for key in ("image", "path") if not _is_missing(row.get(key))}
    if len(given) != 1:
        raise InputError(
            f"{name}: give either image (base64 text or levels) or path, not {'both' if given else 'none'}"
        )
    if "path" in given:
        return decode_image(_read_file(given["path"], name), name)
    if isinstance(given["image"], str):
        return decode_image(_decode_text(given["image"], name), name)
    return _from_levels(given["image"], name)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _decode_text(text: str, name: str) -> bytes:
    if len(text) > MAX_TEXT:
        raise InputError(f"{name}: {len(text):,} characters of base64, more than the limit of {MAX_TEXT:,}; shrink it")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{name}: not base64 ({error}); send the content of an image file in base64") from error


def _from_levels(value: object, name: str) -> ImageArray:
    """(H, W, 3) or (H, W) whole numbers of 0..255, as nested lists or as an array."""
    try:
        levels = np.asarray(value.tolist() if isinstance(value, np.ndarray) else value)
    except ValueError as error:
        raise InputError(f"{name}: rows of different lengths; send (H, W, 3) or (H, W) levels") from error
    if levels.ndim not in (2, 3) or levels.shape[2:] not in ((), (3,)) or levels.size == 0:
        raise InputError(f"{name}: levels of shape {levels.shape}; send base64 text, or levels (H, W, 3) or (H, W)")
    if levels.dtype.kind not in "iu" or levels.min() < 0 or levels.max() > 255:
        raise InputError(f"{name}: levels must be whole numbers of 0 to 255")
    if levels.shape[0] * levels.shape[1] > MAX_PIXELS:
        raise InputError(f"{name}: more than the limit of {MAX_PIXELS:,} pixels; shrink it")
    grey = levels.ndim == 2
    return np.ascontiguousarray(np.repeat(levels[:, :, None], 3, axis=2) if grey else levels, dtype=np.uint8)


def _read_file(given: object, name: str) -> bytes:
    """Content of a file below the allowed folder, links followed first."""
    if not os.environ.get(FOLDER):
        raise InputError(f"{name}: this server reads no files; send the image in base64, or start it with {FOLDER}")
    folder = Path(os.environ[FOLDER]).resolve()
    try:
        path = (folder / str(given)).resolve()
        if not path.is_relative_to(folder):
            raise InputError(f"{name}: lies outside the folder that this server reads; name a file inside it")
        if not path.is_file():
            raise InputError(f"{name}: no such file in the folder that this server reads")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{name}: a file of more than {MAX_BYTES:,} bytes; shrink it")
        return path.read_bytes()
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # a name with a zero byte, too long, or a circle of links
        raise InputError(f"{name}: cannot be read; name a file in the folder that this server reads") from error
