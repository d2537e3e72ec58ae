import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inandout.data.config import Geometry
from inandout.data.geometry import fit_image
from inandout.data.images import read_image
from inandout.errors import InputError
from inandout.serving import request_images
from inandout.serving.request_images import FOLDER, MAX_ROWS, MAX_TEXT, prepare_rows

GEOMETRY = Geometry(width=48, height=32)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(shape: tuple[int, ...] = (50, 70, 3), kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(noise()), "JPEG", exif=exif)


FILES = {
    "rgb.png": encoded(Image.fromarray(noise())),
    "turned.jpg": turned(),
    "deep.png": encoded(Image.fromarray(noise((50, 70), np.uint16))),
    "grey.bmp": encoded(Image.fromarray(noise((50, 70))), "BMP"),
    "clear.webp": encoded(Image.fromarray(noise((50, 70, 4))), "WEBP", lossless=True),
    "ink.tif": encoded(Image.fromarray(noise((50, 70, 4)), "CMYK"), "TIFF"),
}


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("name", FILES)
def test_an_image_from_base64_or_a_path_has_the_pixels_of_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    monkeypatch.setenv(FOLDER, str(tmp_path))
    expected = fit_image(read_image(tmp_path / name), GEOMETRY)
    lines = base64.encodebytes(FILES[name]).decode()
    rows: list[dict[str, Any]] = [
        {"image": text(FILES[name])},
        {"image": lines},
        {"path": name},
        {"path": str(tmp_path / name), "image": None},
    ]
    for pixels in prepare_rows(rows, GEOMETRY):
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_base64_may_be_url_safe_unpadded_or_a_data_url(length: int) -> None:
    content = FILES["rgb.png"] + b"\xff\xfe\xfb" * 3 + b"\0" * length
    safe = base64.urlsafe_b64encode(content).decode()
    assert {"-", "_"} <= set(safe)
    spellings = [
        text(content), text(content).rstrip("="), safe, safe.rstrip("="), f"data:image/png;base64,{text(content)}",
        f"DATA:image/png;charset=utf-8;BASE64,{safe.rstrip('=')}", f"data:;base64,{text(content)}",
    ]  # fmt: skip
    first, *others = prepare_rows([{"image": spelling} for spelling in spellings], GEOMETRY)
    for other in others:
        np.testing.assert_array_equal(other, first)
    for wrong in (f"data:image/png,{safe}", "data:image/png;base64", f"data:image/png;base64,{safe[:-1]}ä"):
        with pytest.raises(InputError, match="image 0: not "):
            prepare_rows([{"image": wrong}], GEOMETRY)


def test_pixel_values_in_colour_and_grey_are_unchanged() -> None:
    colour, grey = noise((32, 48, 3)), noise((32, 48))
    first, second, third = prepare_rows(
        [{"image": colour.tolist(), "path": float("nan")}, {"image": grey.tolist()}, {"image": grey}], GEOMETRY
    )
    np.testing.assert_array_equal(first, colour)
    np.testing.assert_array_equal(second, np.repeat(grey[:, :, None], 3, 2))
    np.testing.assert_array_equal(third, second)


def huge_png() -> bytes:
    """Return a PNG file of 30000x30000 pixels in 100 bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"foo": 1}, "give either image .* or path, not none"),
    "both": ({"image": text(FILES["rgb.png"]), "path": "a.png"}, "not both"),
    "no base64": ({"image": "part.png"}, "not base64"),
    "not ascii": ({"image": "ä"}, "not base64"),
    "no image": ({"image": text(b"hello")}, r"no image in a known format: PNG.*; convert, replace"),
    "truncated": ({"image": text(FILES["rgb.png"][:400])}, "cannot be decoded"),
    "huge": ({"image": text(huge_png())}, "limit of 50,000,000 pixels"),
    "long": ({"image": "A" * (MAX_TEXT + 4)}, "16,777,220 characters of base64 exceed the limit of 16,777,216"),
    "gif": ({"image": text(encoded(Image.new("RGB", (8, 8)), "GIF"))}, "no image in a known format"),
    "postscript": (
        {"image": text(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")},
        "no image in a known format",
    ),
    "number": ({"image": 3}, r"pixel values of shape \(\)"),
    "empty": ({"image": [[]]}, r"pixel values of shape \(1, 0\)"),
    "four channels": ({"image": np.zeros((2, 2, 4), int).tolist()}, r"pixel values of shape \(2, 2, 4\)"),
    "ragged": ({"image": [[1, 2], [1]]}, "rows of different lengths"),
    "too bright": ({"image": [[256]]}, "integers from 0 to 255"),
    "negative": ({"image": [[-1]]}, "integers from 0 to 255"),
    "fractions": ({"image": [[0.5]]}, "integers from 0 to 255"),
    "strings": ({"image": [["a"]]}, "integers from 0 to 255"),
    "path": ({"path": "rgb.png"}, f"this server reads no files; .* start it with {FOLDER}"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_invalid_row_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    row, message = BROKEN[name]
    with pytest.raises(InputError, match=f"^image 1: .*{message}"):
        prepare_rows([{"image": text(FILES["rgb.png"])}, row], GEOMETRY)


@pytest.mark.parametrize("n", [0, MAX_ROWS + 1])
def test_no_and_too_many_images_are_refused(n: int) -> None:
    with pytest.raises(InputError, match=f"^{n} images in the request; send 1 to 256"):
        prepare_rows([{"image": [[0]]}] * n, GEOMETRY)


def test_paths_outside_the_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, outside = tmp_path / "in", tmp_path / "in-secret"
    folder.mkdir()
    outside.mkdir()
    for place in (folder, outside):
        (place / "rgb.png").write_bytes(FILES["rgb.png"])
    (folder / "link.png").symlink_to(outside / "rgb.png")
    (folder / "away").symlink_to(outside)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "inside.png").symlink_to(folder / "rgb.png")
    monkeypatch.setenv(FOLDER, str(folder))
    assert len(prepare_rows([{"path": "inside.png"}], GEOMETRY)) == 1
    for path in ("../in-secret/rgb.png", str(outside / "rgb.png"), "link.png", "away/rgb.png", "/etc/passwd", ".."):
        with pytest.raises(InputError, match="outside the folder"):
            prepare_rows([{"path": path}], GEOMETRY)
    wrong: list[Any] = ["no.png", ".", 7, "a\0b", "loop", "x" * 5000]
    for path in wrong:
        with pytest.raises(InputError, match=r"no such file|cannot be read"):
            prepare_rows([{"path": path}], GEOMETRY)


def test_the_size_of_a_file_is_checked_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rgb.png").write_bytes(FILES["rgb.png"])
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(request_images, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="file exceeds the limit of 100 bytes"):
        prepare_rows([{"path": "rgb.png"}], GEOMETRY)


def test_a_request_with_too_many_pixels_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    content = text(FILES["rgb.png"])
    monkeypatch.setattr(request_images, "MAX_REQUEST_PIXELS", 3 * 50 * 70)
    assert len(prepare_rows([{"image": content}] * 3, GEOMETRY)) == 3

    def decode(data: bytes, name: str) -> np.ndarray:
        raise AssertionError(name)

    monkeypatch.setattr(request_images, "decode_image", decode)
    with pytest.raises(InputError, match="have 14,000 pixels, more than the limit of 10,500; send fewer"):
        prepare_rows([{"image": content}] * 4, GEOMETRY)
