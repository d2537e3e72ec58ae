"""Decoding and preprocessing of request images, exactly as in training; sizes are checked before decoding."""

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from inandout.data.config import Geometry
from inandout.data.geometry import fit_image
from inandout.data.images import MAX_PIXELS, ImageArray, count_pixels, decode_image
from inandout.errors import InputError

FOLDER = "INANDOUT_SERVE_FOLDER"
"""Environment variable of the server: folder of the files that requests may name; without it, paths are refused."""
MAX_BYTES = 12 * 2**20
"""Maximum size of an encoded image."""
MAX_TEXT = 16 * 2**20
"""Maximum number of base64 characters, 4 for every 3 bytes."""
MAX_ROWS = 256
"""Maximum number of images in a request."""
MAX_REQUEST_PIXELS = 100_000_000
"""Maximum number of pixels of all images of a request, checked before anything is decoded."""
_DECODING = Lock()
"""Held while images are decoded, so that requests at once need the memory of one image of `MAX_PIXELS`."""


_URL_SAFE = str.maketrans("-_", "+/")


def prepare_rows(rows: list[dict[str, Any]], geometry: Geometry) -> np.ndarray:
    """Return pixels (N, H, W, 3) of rows with either `image` or `path`; the other is missing, None or NaN.

    Raises:
        InputError: there are no or too many rows or pixels, or an image is invalid; the message names the first,
            counted from 0.
    """
    check_number(len(rows))
    contents = [_content(row, f"image {i}") for i, row in enumerate(rows)]
    pixels = sum(
        count_pixels(content, f"image {i}") if isinstance(content, bytes) else content.shape[0] * content.shape[1]
        for i, content in enumerate(contents)
    )
    if len(rows) > 1 and pixels > MAX_REQUEST_PIXELS:
        raise InputError(
            f"the images of the request have {pixels:,} pixels, more than the limit of {MAX_REQUEST_PIXELS:,}; send "
            "fewer or smaller images"
        )
    with _DECODING:
        return np.stack(
            [
                fit_image(decode_image(content, f"image {i}") if isinstance(content, bytes) else content, geometry)
                for i, content in enumerate(contents)
            ]
        )


def check_number(images: int) -> None:
    """Raise an InputError if a request has no or too many images."""
    if not 0 < images <= MAX_ROWS:
        raise InputError(f"{images} images in the request; send 1 to {MAX_ROWS}, each as image or path")


def _content(row: Mapping[str, Any], name: str) -> bytes | ImageArray:
    """Return the encoded image of a row, or its pixel values."""
    values = {key: row[key] for key in ("image", "path") if not _is_missing(row.get(key))}
    if len(values) != 1:
        raise InputError(
            f"{name}: give either image (base64 text or pixel values) or path, not {'both' if values else 'none'}"
        )
    if "path" in values:
        return _read_file(values["path"], name)
    if isinstance(values["image"], str):
        return _decode_text(values["image"], name)
    return _from_levels(values["image"], name)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _decode_text(text: str, name: str) -> bytes:
    """Decode base64 in the standard or URL-safe alphabet, padded or not, alone or as a data URL."""
    if len(text) > MAX_TEXT:
        raise InputError(
            f"{name}: {len(text):,} characters of base64 exceed the limit of {MAX_TEXT:,}; resize the image"
        )
    plain = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    if plain[:5].lower() == "data:":
        kind, comma, plain = plain.partition(",")
        if not comma or not kind.lower().endswith(";base64"):
            raise InputError(f"{name}: not a data URL of base64; send data:image/png;base64,... or base64 alone")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{name}: not base64 ({error}); send the content of an image file as base64") from error


def _from_levels(value: object, name: str) -> ImageArray:
    """Return an image from integers (H, W, 3) or (H, W) in 0..255, as nested lists or as an array."""
    try:
        levels = np.asarray(value.tolist() if isinstance(value, np.ndarray) else value)
    except ValueError as error:
        raise InputError(f"{name}: rows of different lengths; send pixel values (H, W, 3) or (H, W)") from error
    if levels.ndim not in (2, 3) or levels.shape[2:] not in ((), (3,)) or levels.size == 0:
        raise InputError(
            f"{name}: pixel values of shape {levels.shape}; send base64 text, or pixel values (H, W, 3) or (H, W)"
        )
    if levels.dtype.kind not in "iu" or levels.min() < 0 or levels.max() > 255:
        raise InputError(f"{name}: pixel values must be integers from 0 to 255")
    if levels.shape[0] * levels.shape[1] > MAX_PIXELS:
        raise InputError(f"{name}: exceeds the limit of {MAX_PIXELS:,} pixels; resize the image")
    grey = levels.ndim == 2
    return np.ascontiguousarray(np.repeat(levels[:, :, None], 3, axis=2) if grey else levels, dtype=np.uint8)


def _read_file(requested: object, name: str) -> bytes:
    """Return the content of a file inside the allowed folder, after resolving links."""
    if not os.environ.get(FOLDER):
        raise InputError(f"{name}: this server reads no files; send the image as base64, or start it with {FOLDER}")
    folder = Path(os.environ[FOLDER]).resolve()
    try:
        path = (folder / str(requested)).resolve()
        if not path.is_relative_to(folder):
            raise InputError(f"{name}: path is outside the folder of this server; name a file inside it")
        if not path.is_file():
            raise InputError(f"{name}: no such file in the folder of this server; check the path")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{name}: file exceeds the limit of {MAX_BYTES:,} bytes; resize the image")
        return path.read_bytes()
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # a NUL byte, a name that is too long, or a loop of links
        raise InputError(f"{name}: cannot be read; name a file in the folder of this server") from error
