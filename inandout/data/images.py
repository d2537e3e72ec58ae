"""Decode image files to uint8 RGB arrays and boolean masks, and encode them.

Conversion to 8-bit RGB:

| stored as                                 | conversion                                                     |
|-------------------------------------------|----------------------------------------------------------------|
| 1-bit, grey, palette                      | colour values                                                  |
| grey + alpha, RGBA                        | composited over black, so that transparent colours stay hidden |
| CMYK, YCbCr                               | Pillow's conversion to RGB                                     |
| 16-bit grey                               | value / 257, rounded: fixed range, no scaling per image        |
| EXIF orientation                          | applied                                                        |
| float, 32-bit, multi-frame, anything else | rejected                                                       |
"""

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from inandout.errors import InputError

ImageArray = npt.NDArray[np.uint8]
"""(H, W, 3) RGB, 0..255."""
ImageBatch = npt.NDArray[np.uint8]
"""(N, H, W, 3) RGB, 0..255: images of one size."""
Mask = npt.NDArray[np.bool_]
"""(H, W), true on the defect."""

MAX_PIXELS = 50_000_000
"""Images with more pixels are rejected before decoding."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

SERVED_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Pillow formats allowed for bytes from a network, the formats of `IMAGE_SUFFIXES`. Pillow runs external programs for
some others."""

_EIGHT_BIT_MODES = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "PA", "RGBA"})
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Decode an image to (H, W, 3) uint8 RGB, by the table in the module's docstring.

    Raises:
        InputError: the file cannot be read, is truncated, has more than `max_pixels` pixels, or is not in the table.
    """
    return _to_rgb(_load(path, str(path), max_pixels))


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Decode the bytes of a file in one of `SERVED_FORMATS`, as `read_image`; errors mention `name`."""
    return _to_rgb(_load(data, name, max_pixels))


def _to_rgb(image: Image.Image) -> ImageArray:
    if image.mode in _SIXTEEN_BIT_MODES:
        grey = np.rint(np.asarray(image, dtype=np.float32) / 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.array(image.convert("RGB"))


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> Mask:
    """Decode a mask to (H, W) bool: true for every pixel that is neither black nor transparent.

    Raises:
        InputError: as `read_image`.
    """
    image = _load(path, str(path), max_pixels)
    if image.mode in _SIXTEEN_BIT_MODES or (image.mode in ("1", "L") and "transparency" not in image.info):
        return np.greater(np.asarray(image), 0)
    red, green, blue, alpha = np.moveaxis(np.asarray(image.convert("RGBA")), 2, 0)
    return np.greater(red | green | blue, 0) & np.greater(alpha, 0)


def write_image(path: Path, pixels: ImageArray | Mask) -> None:
    """Write an image or a mask as PNG atomically."""
    array = pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    Image.fromarray(array).save(temporary, format="PNG", compress_level=1)
    temporary.replace(path)


def _load(source: Path | bytes, name: str, max_pixels: int) -> Image.Image:
    """Open, check and fully decode an image, with its EXIF orientation applied."""
    try:
        with _open(source) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(
                    f"{name}: {width}x{height} is {width * height:,} pixels, more than the limit of {max_pixels:,}; "
                    "crop or shrink it"
                )
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{name}: has several frames; save one frame as a separate file")
            if image.mode not in _EIGHT_BIT_MODES | _ALPHA_MODES | _SIXTEEN_BIT_MODES:
                raise InputError(
                    f"{name}: the pixel format {image.mode!r} has no defined range; "
                    "save it as 8- or 16-bit grey, or 8-bit RGB"
                )
            if image.format == "PNG":
                with _open(source) as unread:
                    unread.verify()  # checksums of the pixel data, which decoding ignores
            image.load()
            upright: Image.Image = ImageOps.exif_transpose(image)
            return upright
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: more than the limit of {max_pixels:,} pixels; crop or shrink it") from error
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name}: cannot be decoded (no image in a known format); replace or remove the file"
        ) from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, TypeError and others on damaged files
        raise InputError(f"{name}: cannot be decoded ({error}); replace or remove the file") from error


def _open(source: Path | bytes) -> Image.Image:
    return Image.open(source) if isinstance(source, Path) else Image.open(io.BytesIO(source), formats=SERVED_FORMATS)
