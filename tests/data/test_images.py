import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inandout.data.images import read_image, read_mask, write_image
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
    image = Image.merge("LA", [Image.new("L", (2, 2), 100), Image.new("L", (2, 2), 0)])
    assert read_image(saved(tmp_path / "a.png", encoded(image, "PNG"))).max() == 0


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
