"""Decode image files to uint8 RGB arrays and boolean masks, and encode them.

`docs/image_formats.md` lists what each variant of the formats becomes. In short:

| stored as                                 | conversion                                                        |
|-------------------------------------------|-------------------------------------------------------------------|
| 1-bit, grey, palette                      | colour values                                                     |
| grey + alpha, RGBA                        | composited over black; an alpha channel of one value is ignored   |
| CMYK, YCbCr                               | Pillow's conversion to RGB                                        |
| 16-bit grey                               | value / 257, rounded: fixed range, no scaling per image           |
| TIFF: white is zero, 12 bits packed       | inverted; value * 255 / 4095, rounded                             |
| EXIF orientation                          | applied                                                           |
| further frames that are previews          | ignored                                                           |
| float, 32-bit, multi-frame, anything else | rejected                                                          |
"""

import io
import os
import struct
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

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

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Pillow formats that are decoded, the formats of `IMAGE_SUFFIXES`. Pillow runs external programs for some others."""

SOFT_LEVELS = 8
"""Maximum number of grey levels above 0 in a mask of classes; a mask with more has soft edges."""
MIDDLE = 128
"""Level from which a pixel of a soft or lossy mask is a defect."""

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
    """Decode the bytes of a file in one of `FORMATS`, as `read_image`; errors mention `name`."""
    return _to_rgb(_load(data, name, max_pixels))


def count_pixels(data: bytes, name: str) -> int:
    """Return the number of pixels that the header of an image states; nothing is decoded.

    Raises:
        InputError: the header cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(data) as image:
                return image.width * image.height
    except Image.DecompressionBombError:
        return MAX_PIXELS + 1
    except Exception as error:
        if "MAX_TEXT" in str(error):
            return count_pixels(_without_metadata(data), name)
        _load(data, name, MAX_PIXELS)  # raises the error of decoding
        raise


def _to_rgb(image: Image.Image) -> ImageArray:
    if image.mode in _SIXTEEN_BIT_MODES:
        grey = np.rint(_levels(image)).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if _has_alpha(image):
        rgba = image.convert("RGBA")
        ignored = image.mode in _ALPHA_MODES and _has_one_alpha(rgba)
        image = rgba if ignored else Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.array(image.convert("RGB"))


def _levels(image: Image.Image) -> npt.NDArray[np.float32]:
    """Return the values (H, W) of a grey image of 12 or 16 bits, 0 = black, 255 = white."""
    highest, inverted = image.info.get("inandout.range", (65535, False))
    levels = np.asarray(image, dtype=np.float32) / np.float32(highest / 255)
    return 255 - levels if inverted else levels


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in _ALPHA_MODES or "transparency" in image.info


def _has_one_alpha(rgba: Image.Image) -> bool:
    """Return whether alpha has one value, as the unused fourth byte of a 32-bit bitmap."""
    low, high = rgba.getchannel("A").getextrema()
    return bool(low == high)


class DecodedMask(NamedTuple):
    """A mask, and what its levels may hide."""

    mask: Mask
    remark: str
    """Why pixels below `MIDDLE` do not count as a defect; empty if every pixel above 0 does."""


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> Mask:
    """Decode a mask to (H, W) bool, as `decode_mask`."""
    return decode_mask(path, max_pixels).mask


def decode_mask(path: Path, max_pixels: int = MAX_PIXELS) -> DecodedMask:
    """Decode a mask: true for every pixel that is neither black nor transparent.

    Two kinds of masks have levels that do not mean a defect, and are true from `MIDDLE` on: lossy ones (JPEG, lossy
    WebP), whose compression adds faint specks, and soft ones, grey with more than `SOFT_LEVELS` levels above 0 and a
    maximum of at least `MIDDLE`. The level of a colour is its highest channel.

    Raises:
        InputError: as `read_image`.
    """
    image = _load(path, str(path), max_pixels)
    if image.mode in _SIXTEEN_BIT_MODES:
        values = _levels(image)
        levels, is_grey = np.maximum(np.rint(values), values > 0).astype(np.uint8), True
    else:
        colours = np.asarray(image.convert("RGBA"))
        levels, is_grey = colours[:, :, :3].max(axis=2), bool(np.ptp(colours[:, :, :3], axis=2).max(initial=0) == 0)
        if "transparency" in image.info or np.ptp(colours[:, :, 3]):
            levels = np.where(colours[:, :, 3] > 0, levels, np.uint8(0))
    found = len(np.unique(levels[levels > 0]))
    if _is_lossy(path, image):
        return DecodedMask(levels >= MIDDLE, f"the mask is lossy ({image.info['inandout.format']}, {found} levels)")
    if is_grey and found > SOFT_LEVELS and levels.max() >= MIDDLE:
        return DecodedMask(levels >= MIDDLE, f"the mask is soft ({found} grey levels)")
    return DecodedMask(levels > 0, "")


def _is_lossy(path: Path, image: Image.Image) -> bool:
    kind = image.info["inandout.format"]
    if kind == "WEBP":
        return b"VP8L" not in path.read_bytes()
    return kind in ("JPEG", "MPO") or image.info.get("compression") in ("jpeg", "webp")


def write_image(path: Path, pixels: ImageArray | Mask) -> None:
    """Write an image or a mask as PNG atomically."""
    array = pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        Image.fromarray(array).save(temporary, format="PNG", compress_level=1)
        temporary.replace(path)
    finally:  # without the search of `replacing` for leftovers, since a folder may hold many images
        temporary.unlink(missing_ok=True)


_NEW_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 254, 258, 259, 262, 284, 339
"""TIFF tags."""
_YCBCR, _JPEG = 6, (6, 7)
"""Values of the TIFF tags photometric interpretation and compression."""


def _load(source: Path | bytes, name: str, max_pixels: int) -> Image.Image:
    """Open, check and fully decode an image, with its EXIF orientation applied."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of damaged metadata, which does not concern the pixels
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            return _decode(source, name, max_pixels)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: more than the limit of {max_pixels:,} pixels; crop or shrink it") from error
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name}: cannot be decoded (no image in a known format: {', '.join(FORMATS)}); "
            "convert, replace or remove the file"
        ) from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, TypeError and others on damaged files
        if "MAX_TEXT" in str(error):
            content = source if isinstance(source, bytes) else source.read_bytes()
            return _load(_without_metadata(content), name, max_pixels)
        raise InputError(f"{name}: cannot be decoded ({error}); replace or remove the file") from error


def _decode(source: Path | bytes, name: str, max_pixels: int) -> Image.Image:
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise InputError(f"{name}: not a regular file; replace or remove it")
    with _open(source) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(
                f"{name}: {width}x{height} is {width * height:,} pixels, more than the limit of {max_pixels:,}; "
                "crop or shrink it"
            )
        if getattr(image, "n_frames", 1) > 1 and not _only_previews(image):
            raise InputError(f"{name}: has several frames; save one frame as a separate file")
        if image.mode not in _EIGHT_BIT_MODES | _ALPHA_MODES | _SIXTEEN_BIT_MODES:
            raise InputError(
                f"{name}: the pixel format {image.mode!r} has no defined range; "
                "save it as 8- or 16-bit grey, or 8-bit RGB"
            )
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _refuse_tiff(image, name)
        if image.format == "PNG":
            with _open(source) as unread:
                unread.verify()  # checksums of the pixel data, which decoding ignores
        image.load()
        upright = _upright(image)
        upright.info["inandout.format"] = image.format
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in _SIXTEEN_BIT_MODES:
            tags = image.tag_v2
            upright.info["inandout.range"] = 2 ** tags[_BITS][0] - 1, tags[_PHOTOMETRIC] == 0
        return upright


def _upright(image: Image.Image) -> Image.Image:
    """Return the image as its EXIF orientation says; unreadable EXIF data has no orientation."""
    try:
        upright: Image.Image = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data; the pixels are intact
        return image
    return upright


def _only_previews(image: Image.Image) -> bool:
    """Return whether all frames after the first are smaller versions of it, as cameras and scanners store them."""
    if image.format == "MPO":
        kinds = [entry["Attribute"]["MPType"] for entry in image.mpinfo[0xB002][1:]]  # type: ignore[attr-defined]
        return all(kind.startswith("Large Thumbnail") or kind == "Undefined" for kind in kinds)
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    flags = []
    for frame in range(1, image.n_frames):
        image.seek(frame)
        flags.append(image.tag_v2.get(_NEW_SUBFILE, 0))
    image.seek(0)
    return all(flag & 1 for flag in flags)


def _refuse_tiff(image: TiffImagePlugin.TiffImageFile, name: str) -> None:
    """Refuse TIFF variants that Pillow reads as something else."""
    tags = image.tag_v2
    if any(kind != 1 for kind in tags.get(_SAMPLE_FORMAT, (1,))):
        raise InputError(
            f"{name}: signed values have no defined range; save it as unsigned 8- or 16-bit grey, or 8-bit RGB"
        )
    if tags.get(_PLANAR, 1) != 1 and max(tags[_BITS]) > 8:
        raise InputError(f"{name}: planes of more than 8 bits are not supported; save it with interleaved channels")
    if tags.get(_PHOTOMETRIC) == _YCBCR and tags.get(_COMPRESSION, 1) not in _JPEG:
        raise InputError(f"{name}: YCbCr in a TIFF without JPEG compression is not supported; save it as RGB")


def _without_metadata(content: bytes) -> bytes:
    """Return a PNG without its text and colour profile, which may be of any size."""
    kept, place = [content[:8]], 8
    while place + 8 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        if content[place + 4 : place + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.append(content[place : place + 12 + length])
        place += 12 + length
    return b"".join(kept)


def _open(source: Path | bytes) -> Image.Image:
    return Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS)
