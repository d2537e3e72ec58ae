import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from inandout.classifier.pixels import load_pixels
from inandout.data.config import Geometry
from inandout.data.images import ImageArray, read_image, write_image
from inandout.errors import InputError

SQUARE = Geometry(width=32, height=32)


def write_images(folder: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        write_image(path, rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    return paths


def test_images_are_uint8_in_order_with_three_bytes_per_pixel(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 5)
    pixels = load_pixels(paths, Geometry(width=32, height=48))
    assert pixels.shape == (5, 48, 32, 3)
    assert pixels.dtype == np.uint8
    single = [load_pixels([path], Geometry(width=32, height=48))[0] for path in paths]
    assert np.array_equal(pixels, single)
    float_images_and_int64_masks = 5 * 48 * 32 * (3 * 4 + 8)
    assert pixels.nbytes * 6 <= float_images_and_int64_masks


def test_images_above_the_limit_are_memory_mapped_with_equal_values(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 3)
    mapped = load_pixels(paths, SQUARE, memory_limit=100)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, load_pixels(paths, SQUARE))


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 2)
    paths[1].write_bytes(b"")
    with pytest.raises(InputError, match=r"1\.png"):
        load_pixels(paths, SQUARE)


def test_a_full_disk_raises_an_error_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int, start: int, size: int) -> None:
        assert (start, size) == (0, 3 * 32 * 32 * 3)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError, match=f"need 1 MB in {tmp_path} .*free disk space or set TMPDIR"):
        load_pixels([tmp_path / "never read.png"] * 3, SQUARE, memory_limit=100)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this platform cannot reserve space")
def test_the_memory_mapped_file_is_allocated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = []
    real = np.memmap
    monkeypatch.setattr(
        np, "memmap", lambda file, *a, **k: (stats.append(os.fstat(file.fileno())), real(file, *a, **k))[1]
    )
    load_pixels(write_images(tmp_path, 3), SQUARE, memory_limit=100)
    (stat,) = stats
    assert stat.st_size == 3 * 32 * 32 * 3
    assert stat.st_blocks * 512 >= stat.st_size


def test_an_image_is_decoded_once_per_size_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    decoded: list[str] = []

    def counted(path: Path) -> ImageArray:
        decoded.append(path.name)
        return read_image(path)

    monkeypatch.setattr("inandout.classifier.pixels.read_image", counted)
    paths = write_images(tmp_path, 3)
    for path in paths:
        os.utime(path, (1e9, 1e9))  # old enough for the cache
    first = load_pixels(paths, SQUARE)
    assert np.array_equal(load_pixels(paths[::-1], SQUARE), first[::-1])
    assert sorted(decoded) == ["0.png", "1.png", "2.png"]
    load_pixels(paths, Geometry(width=40, height=32))
    assert len(decoded) == 6
    write_image(paths[1], np.full((40, 60, 3), 7, np.uint8))
    second = load_pixels(paths, SQUARE)
    assert (second[1] == 7).all()
    assert np.array_equal(second[::2], first[::2])
    assert decoded[6:] == ["1.png"]
