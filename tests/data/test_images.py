import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inandout.data.images import decode_image, decode_mask, read_image, read_mask, write_image
from inandout.errors import InputError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    image = read_image(saved(tmp_path / "a.png", encoded(Image.fromarray(GREY), "PNG")))
    assert image.dtype == np.uint8
    assert np.array_equal(image, np.repeat(GREY[:, :, None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_full_range(tmp_path: Path, kind: str) -> None:
    values = np.array([[0, 257, 32896], [65535, 128, 129]], dtype=np.uint16)
    image = read_image(saved(tmp_path / "a", encoded(Image.fromarray(values), kind)))
    assert image[:, :, 0].tolist() == [[0, 1, 128], [255, 0, 1]]


def test_big_endian_sixteen_bit_tiff_is_read_like_little_endian(tmp_path: Path) -> None:
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 257 * 7, 65535))
    assert read_image(saved(tmp_path / "a", encoded(image, "TIFF")))[0, :, 0].tolist() == [7, 255]


def test_transparent_colours_become_black(tmp_path: Path) -> None:
    rgba = np.full((2, 2, 4), 200, dtype=np.uint8)
    rgba[:, :, 3] = [[255, 0], [255, 0]]
    image = read_image(saved(tmp_path / "a.png", encoded(Image.fromarray(rgba), "PNG")))
    assert image[0, 0].tolist() == [200] * 3
    assert image[0, 1].tolist() == [0] * 3


def test_grey_with_alpha_is_composited_over_black(tmp_path: Path) -> None:
    alpha = Image.fromarray(np.array([[0, 255], [51, 0]], np.uint8))
    image = Image.merge("LA", [Image.new("L", (2, 2), 100), alpha])
    assert read_image(saved(tmp_path / "a.png", encoded(image, "PNG")))[:, :, 0].tolist() == [[0, 100], [20, 0]]


def test_a_palette_is_converted_to_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert read_image(saved(tmp_path / "a.png", encoded(image, "PNG")))[0, 0].tolist() == [10, 20, 30]


def test_a_transparent_palette_colour_becomes_black(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    path = saved(tmp_path / "a.png", encoded(image, "PNG", transparency=1))
    assert read_image(path).max() == 0
    assert not read_mask(path).any()


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = read_image(saved(tmp_path / "a.jpg", encoded(image, "JPEG", quality=100)))[4, 4].tolist()
    assert red > 240
    assert max(green, blue) < 15


def test_one_bit_images_are_black_and_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", encoded(Image.fromarray(GREY > 100), "PNG"))
    assert np.array_equal(read_image(path)[:, :, 0], (GREY > 100) * 255)
    assert np.array_equal(read_mask(path), GREY > 100)


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise for display
    image = read_image(saved(tmp_path / "a.png", encoded(Image.fromarray(GREY), "PNG", exif=exif)))
    assert np.array_equal(image[:, :, 0], np.rot90(GREY, -1))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixel_formats_without_a_defined_range_raise_an_error(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path / "a.tif", encoded(Image.new(mode, (4, 4)), "TIFF"))
    with pytest.raises(InputError, match="no defined range"):
        read_image(path)


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_several_frames_raise_an_error(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(noise((20, 20, 3), seed)) for seed in range(2)]
    path = saved(tmp_path / "a", encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    with pytest.raises(InputError, match="several frames"):
        read_image(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_a_truncated_file_raises_an_error(tmp_path: Path, kind: str) -> None:
    content = encoded(Image.fromarray(noise((64, 64, 3))), kind)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(saved(tmp_path / "a", content[: len(content) // 2]))


@pytest.mark.parametrize("name", ["IHDR", "IDAT"])
def test_a_png_with_a_wrong_checksum_raises_an_error(tmp_path: Path, name: str) -> None:
    content = bytearray(encoded(Image.fromarray(noise((16, 16))), "PNG"))
    start = content.index(name.encode())
    (length,) = struct.unpack(">I", content[start - 4 : start])
    content[start + 4 + length] ^= 1
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(saved(tmp_path / "a.png", bytes(content)))


def test_a_huge_image_raises_an_error_before_decoding(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    with pytest.raises(InputError, match="limit of 50,000,000"):
        read_image(saved(tmp_path / "a.png", content))


def test_the_pixel_limit_is_configurable(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", encoded(Image.fromarray(GREY), "PNG"))
    assert read_image(path, max_pixels=48).shape == (6, 8, 3)
    with pytest.raises(InputError, match="8x6 is 48 pixels, more than the limit of 47"):
        read_image(path, max_pixels=47)


@pytest.mark.parametrize("content", [b"", b"just text", b"<!DOCTYPE html><html>not found</html>"])
def test_files_that_are_not_images_raise_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(saved(tmp_path / "a.png", content))


def test_a_type_error_of_pillow_becomes_an_input_error(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(GREY), "TIFF").replace(struct.pack("<H", 256), struct.pack("<H", 999))
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(saved(tmp_path / "a.tif", content))


def test_missing_files_and_link_loops_raise_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "a.png")
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    with pytest.raises(InputError, match=r"loop\.png"):
        read_image(loop)


def test_every_non_black_mask_pixel_is_a_defect(tmp_path: Path) -> None:
    grey = np.array([[0, 1, 255]], dtype=np.uint8)
    rgb = np.zeros((1, 3, 3), dtype=np.uint8)
    rgb[0, 1, 2], rgb[0, 2, 0] = 1, 7
    for values in (grey, grey.astype(np.uint16), rgb):
        path = saved(tmp_path / "m.png", encoded(Image.fromarray(values), "PNG"))
        assert read_mask(path).tolist() == [[False, True, True]]


def test_images_and_masks_survive_a_round_trip(tmp_path: Path) -> None:
    image, mask = noise((5, 7, 3)), noise((5, 7)) > 128
    write_image(tmp_path / "a.png", image)
    write_image(tmp_path / "m.png", mask)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "m.png"]


@pytest.mark.parametrize("alpha", [0, 128, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_of_one_value_is_ignored(tmp_path: Path, mode: str, alpha: int) -> None:
    image = Image.fromarray(noise((6, 8, 3))).convert("L").convert(mode)
    image.putalpha(alpha)
    path = saved(tmp_path / "a.png", encoded(image, "PNG"))
    assert np.array_equal(read_image(path), np.asarray(image.convert("RGB")))
    assert np.array_equal(read_mask(path), np.asarray(image.convert("L")) >= 128), "it is soft"


def test_the_unused_fourth_byte_of_a_bitmap_is_ignored(tmp_path: Path) -> None:
    pixels = noise((6, 8, 3))
    bgra = np.dstack([pixels[::-1, :, ::-1], np.zeros((6, 8), np.uint8)]).tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 108, 8, 6, 1, 32, 3, len(bgra), 0, 0, 0, 0) + masks + b"\0" * 52
    content = b"BM" + struct.pack("<IHHI", 122 + len(bgra), 0, 0, 122) + head + bgra
    assert Image.open(io.BytesIO(content)).mode == "RGBA"
    assert np.array_equal(read_image(saved(tmp_path / "a.bmp", content)), pixels)


def tiff(pixels: np.ndarray, order: str = "<", bits: int = 8, **changes: int) -> bytes:
    """Return an uncompressed TIFF of `pixels` (H, W) or (H, W, C), written by hand.

    Args:
        pixels: values as stored.
        order: `<` or `>`.
        bits: bits of a value: 1, 8, 12 (packed) or 16.
        changes: photometric, planar (2 = planes), tile (side), kind (sample format), extra (extra samples).
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    planes = np.moveaxis(pixels.reshape(height, width, channels), 2, 0)
    planar = changes.get("planar", 1)
    side = changes.get("tile", 0)
    parts = [plane[:, :, None] for plane in planes] if planar == 2 else [pixels.reshape(height, width, channels)]
    blocks = []
    for part in parts:
        if side:
            padded = np.pad(part, ((0, -height % side), (0, -width % side), (0, 0)))
            rows, columns = padded.shape[0] // side, padded.shape[1] // side
            blocks += [
                padded[i * side : (i + 1) * side, j * side : (j + 1) * side]
                for i in range(rows)
                for j in range(columns)
            ]
        else:
            blocks.append(part)
    data = [packed(block, order, bits) for block in blocks]
    place, offsets = 8, []
    for block in data:
        offsets.append(place)
        place += len(block)
    counts = [len(block) for block in data]
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [bits] * channels), 259: ("H", [1]),
        262: ("H", [changes.get("photometric", 2 if channels >= 3 else 1)]), 277: ("H", [channels]),
        284: ("H", [planar]),
    }  # fmt: skip
    if side:
        tags |= {322: ("H", [side]), 323: ("H", [side]), 324: ("I", offsets), 325: ("I", counts)}
    else:
        tags |= {273: ("I", offsets), 278: ("I", [height]), 279: ("I", counts)}
    if "kind" in changes:
        tags[339] = ("H", [changes["kind"]] * channels)
    if "extra" in changes:
        tags[338] = ("H", [changes["extra"]])
    entries, extra, directory = b"", b"", place + (place & 1)
    beyond = directory + 2 + 12 * len(tags) + 4
    for tag, (code, values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(value) > 4:
            value, extra = struct.pack(f"{order}I", beyond + len(extra)), extra + value
        entries += struct.pack(f"{order}HHI", tag, 3 if code == "H" else 4, len(values)) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", directory)
    body = b"".join(data).ljust(directory - 8, b"\0")
    return head + body + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4 + extra


def packed(block: np.ndarray, order: str, bits: int) -> bytes:
    if bits == 1:
        return np.packbits(block[:, :, 0].astype(bool), axis=1).tobytes()
    if bits == 12:
        flat = block.reshape(len(block), -1).astype(np.uint16)
        first, second = flat[:, ::2], flat[:, 1::2]
        rows = np.stack([first >> 4, ((first & 15) << 4) | (second >> 8), second & 255], axis=2)
        return rows.astype(np.uint8).tobytes()
    return block.astype(f"{order}u{bits // 8}").tobytes()


VALUES = np.arange(33 * 34, dtype=np.uint32).reshape(33, 34)
GREY8 = (VALUES % 256).astype(np.uint8)
GREY16 = (VALUES * 58 % 65536).astype(np.uint16)
GREY12 = (VALUES * 3 % 4096).astype(np.uint16)
COLOUR = noise((33, 34, 3))
ONE_BIT = VALUES % 3 == 0

TIFFS: dict[str, tuple[bytes, np.ndarray]] = {
    f"{name} {'little' if order == '<' else 'big'} endian": (tiff(pixels, order, bits, **changes), expected)
    for order in "<>"
    for name, pixels, bits, changes, expected in [
        ("1 bit", ONE_BIT, 1, {}, ONE_BIT * 255),
        ("1 bit, white is zero", ONE_BIT, 1, {"photometric": 0}, ~ONE_BIT * 255),
        ("grey", GREY8, 8, {}, GREY8),
        ("grey, white is zero", GREY8, 8, {"photometric": 0}, 255 - GREY8),
        ("grey in tiles", GREY8, 8, {"tile": 16}, GREY8),
        ("12 bits", GREY12, 12, {}, np.rint(GREY12 / 4095 * 255)),
        ("16 bits", GREY16, 16, {}, np.rint(GREY16 / 257)),
        ("16 bits, white is zero", GREY16, 16, {"photometric": 0}, np.rint((65535 - GREY16.astype(int)) / 257)),
        ("16 bits in tiles", GREY16, 16, {"tile": 16}, np.rint(GREY16 / 257)),
        ("RGB", COLOUR, 8, {}, COLOUR),
        ("RGB in planes", COLOUR, 8, {"planar": 2}, COLOUR),
        ("RGB in tiles", COLOUR, 8, {"tile": 16}, COLOUR),
        ("RGB in planes and tiles", COLOUR, 8, {"tile": 16, "planar": 2}, COLOUR),
        ("RGB of 16 bits", COLOUR.astype(np.uint16) * 257, 16, {}, COLOUR),
        ("RGB and an unused channel", np.dstack([COLOUR, GREY8]), 8, {"extra": 0}, COLOUR),
    ]
    if order == "<" or name not in ("12 bits", "16 bits, white is zero")
}
REFUSED_TIFFS = {
    "12 bits, big endian": tiff(GREY12, ">", 12),
    "16 bits, white is zero, big endian": tiff(GREY16, ">", 16, photometric=0),
    "signed grey": tiff(GREY8, kind=2),
    "signed 16 bits": tiff(GREY16, bits=16, kind=2),
    "YCbCr": tiff(COLOUR, photometric=6),
    "CIE L*a*b*": tiff(COLOUR, photometric=8),
    "RGB of 16 bits in planes": tiff(COLOUR.astype(np.uint16) * 257, bits=16, planar=2),
}


@pytest.mark.parametrize("name", TIFFS)
def test_every_tiff_variant_has_the_same_pixels(tmp_path: Path, name: str) -> None:
    content, expected = TIFFS[name]
    path = saved(tmp_path / "a.tif", content)
    image = read_image(path)
    grey = expected if expected.ndim == 3 else np.repeat(expected[:, :, None], 3, axis=2)
    assert np.array_equal(image, grey)
    assert np.array_equal(decode_image(content, "request"), image)
    decoded = decode_mask(path)
    assert np.array_equal(decoded.mask, grey.max(axis=2) >= 128 if decoded.remark else grey.max(axis=2) > 0)


@pytest.mark.parametrize("name", REFUSED_TIFFS)
def test_a_tiff_variant_without_defined_values_raises_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"; (save|convert|replace)"):
        read_image(saved(tmp_path / "a.tif", REFUSED_TIFFS[name]))


OTHERS: dict[str, tuple[str, Image.Image, dict[str, object], int]] = {
    "PNG, interlaced by palette": ("PNG", Image.fromarray(COLOUR // 64 * 64).quantize(256), {}, 0),
    "PNG, 2-bit palette": ("PNG", Image.fromarray(GREY8 // 64 * 85).quantize(4), {"bits": 2}, 0),
    "PNG, RGB": ("PNG", Image.fromarray(COLOUR), {}, 0),
    "PNG, opaque RGBA": ("PNG", Image.fromarray(COLOUR).convert("RGBA"), {}, 0),
    "BMP": ("BMP", Image.fromarray(COLOUR), {}, 0),
    "BMP, grey": ("BMP", Image.fromarray(GREY8), {}, 0),
    "BMP, 1 bit": ("BMP", Image.fromarray(ONE_BIT), {}, 0),
    "TIFF, LZW": ("TIFF", Image.fromarray(COLOUR), {"compression": "tiff_lzw"}, 0),
    "TIFF, deflate": ("TIFF", Image.fromarray(GREY8), {"compression": "tiff_adobe_deflate"}, 0),
    "TIFF, group 4": ("TIFF", Image.fromarray(ONE_BIT), {"compression": "group4"}, 0),
    "WebP, lossless": ("WEBP", Image.fromarray(COLOUR), {"lossless": True}, 0),
    "JPEG, quality 100": ("JPEG", Image.fromarray(GREY8), {"quality": 100}, 3),
    "JPEG, progressive": ("JPEG", Image.fromarray(GREY8), {"quality": 100, "progressive": True}, 3),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_variant_of_other_formats_has_the_pixels_of_its_source(tmp_path: Path, name: str) -> None:
    kind, image, options, difference = OTHERS[name]
    found = read_image(saved(tmp_path / "a", encoded(image, kind, **options))).astype(int)
    assert np.abs(found - np.asarray(image.convert("RGB"))).max() <= difference


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_lossy_mask_is_thresholded_with_a_remark(tmp_path: Path, kind: str) -> None:
    mask = np.zeros((96, 96), np.uint8)
    mask[20:40, 30:50] = 255
    decoded = decode_mask(saved(tmp_path / "m", encoded(Image.fromarray(mask), kind, quality=60)))
    assert f"the mask is lossy ({kind}" in decoded.remark
    assert (decoded.mask != (mask > 0)).mean() < 0.005
    assert decode_mask(saved(tmp_path / "n", encoded(Image.fromarray(mask), "WEBP", lossless=True))).remark == ""


def test_a_soft_mask_is_thresholded_and_a_mask_of_classes_is_not(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 256, 5, dtype=np.uint8), (6, 1))
    soft = decode_mask(saved(tmp_path / "s.png", encoded(Image.fromarray(ramp), "PNG")))
    assert soft.remark == "the mask is soft (51 grey levels)"
    assert np.array_equal(soft.mask, ramp >= 128)
    for classes in (np.arange(9, dtype=np.uint8)[None], np.arange(40, dtype=np.uint8)[None]):
        found = decode_mask(saved(tmp_path / "c.png", encoded(Image.fromarray(classes), "PNG")))
        assert (found.remark, found.mask.sum()) == ("", classes.size - 1)


def test_metadata_of_any_size_is_ignored(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(COLOUR), "PNG")
    large = zlib.compress(b"x" * (2 * 2**20))
    for chunk in (png_chunk(b"zTXt", b"Comment\0\0" + large), png_chunk(b"iCCP", b"icc\0\0" + large)):
        with_text = content[:33] + chunk + content[33:]
        assert np.array_equal(read_image(saved(tmp_path / "a.png", with_text)), COLOUR)
        assert np.array_equal(decode_image(with_text, "request"), COLOUR)


def test_damaged_exif_data_is_ignored(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    content = encoded(Image.fromarray(GREY), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\0garbage")
    assert read_image(saved(tmp_path / "a.jpg", content)).shape == (6, 8, 3)
    assert not list(recwarn)


def test_previews_are_ignored(tmp_path: Path) -> None:
    photograph, preview = Image.fromarray(COLOUR), Image.fromarray(COLOUR[::2, ::2])
    with_preview = encoded(photograph, "MPO", save_all=True, append_images=[preview], quality=95)
    plain = encoded(photograph, "JPEG", quality=95)
    assert np.array_equal(read_image(saved(tmp_path / "a.jpg", with_preview)), read_image(saved(tmp_path / "b", plain)))
    frames = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::2, ::2])]
    pyramid = bytearray(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:], tiffinfo={254: 0}))
    second = struct.unpack_from("<I", pyramid, place := first_directory_end(pyramid))[0]
    assert second > place
    with pytest.raises(InputError, match="several frames"):
        read_image(saved(tmp_path / "a.tif", bytes(pyramid)))
    entry = next(e for e in range(second + 2, len(pyramid), 12) if struct.unpack_from("<H", pyramid, e)[0] == 254)
    struct.pack_into("<I", pyramid, entry + 8, 1)  # a reduced-resolution version
    assert np.array_equal(read_image(saved(tmp_path / "a.tif", bytes(pyramid))), COLOUR)


def first_directory_end(content: bytearray) -> int:
    """Return the place of the offset of the second directory of a little-endian TIFF."""
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    return int(start) + 2 + 12 * int(count)


def test_other_formats_are_never_opened(tmp_path: Path) -> None:
    for kind in ("GIF", "PPM", "EPS", "PDF"):
        with pytest.raises(InputError, match="no image in a known format: PNG, JPEG, BMP, TIFF, WEBP"):
            read_image(saved(tmp_path / "a.png", encoded(Image.fromarray(COLOUR), kind)))


def test_a_pipe_is_refused_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="not a regular file"):
        read_image(tmp_path / "a.png")
