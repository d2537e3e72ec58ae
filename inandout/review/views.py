"""Images for the browser: thumbnails, full-size images and difference maps."""

import io

import numpy as np
from PIL import Image

from inandout.data.images import ImageArray
from inandout.review.flags import change

THUMBNAIL = 192
"""Longest side of a thumbnail in px."""
_FULL_HEAT = 48.0
"""Difference in grey levels that has the brightest colour of the heat map."""


def thumbnail_webp(image: ImageArray) -> bytes:
    """Encode an image (H, W, 3) as WebP of at most `THUMBNAIL` px per side; smaller images keep their size."""
    small = Image.fromarray(image)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return _encoded(small, "WEBP", quality=85, method=2)


def encode_png(image: ImageArray) -> bytes:
    """Encode an image (H, W, 3) losslessly in its full size."""
    return _encoded(Image.fromarray(image), "PNG", compress_level=1)


def heat_map(image: ImageArray, source: ImageArray) -> ImageArray:
    """Return a colour map (H, W, 3) of the difference between an image and its source, on a fixed scale."""
    from matplotlib import colormaps

    heat = np.clip(change(image, source) / _FULL_HEAT, 0, 1)
    return np.asarray(colormaps["inferno"](heat)[:, :, :3] * 255, dtype=np.uint8)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
