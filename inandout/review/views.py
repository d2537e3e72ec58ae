"""Images as a browser gets them: small ones for a grid, whole ones, and where one differs from another."""

import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from inandout.data.images import ImageArray
from inandout.review.flags import change

THUMBNAIL = 192
"""Longest side of a thumbnail in px."""
_FULL_HEAT = 48.0
"""Grey levels of difference from which the heat map has its brightest colour."""


def thumbnail_webp(image: ImageArray) -> bytes:
    """An image (H, W, 3) as WebP with at most `THUMBNAIL` px a side; smaller ones keep their size."""
    small = Image.fromarray(image)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return _encoded(small, "WEBP", quality=85, method=2)


def whole_png(image: ImageArray) -> bytes:
    """An image (H, W, 3), every pixel as it is."""
    return _encoded(Image.fromarray(image), "PNG", compress_level=1)


def heat_map(image: ImageArray, source: ImageArray) -> ImageArray:
    """Where an image (H, W, 3) differs from its source of the same size: bright on dark, on one scale for all."""
    heat = np.clip(change(image, source) / _FULL_HEAT, 0, 1)
    return np.asarray(colormaps["inferno"](heat)[:, :, :3] * 255, dtype=np.uint8)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
