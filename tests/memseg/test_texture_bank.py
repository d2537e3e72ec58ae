"""Texture banks, procedural and from a folder."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from inandout.data.images import write_image
from inandout.errors import InputError
from inandout.memseg import texture_bank
from inandout.memseg.sources import Box, texture_source
from inandout.memseg.texture_bank import ProceduralTextures, open_textures


def _write(path: Path, seed: int, shape: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8))


def test_procedural_textures_are_deterministic() -> None:
    first = np.asarray(ProceduralTextures().texture(3))
    texture_bank._draw.cache_clear()
    np.testing.assert_array_equal(first, np.asarray(ProceduralTextures().texture(3)))
    assert not np.array_equal(first, np.asarray(ProceduralTextures().texture(4)))


def test_a_folder_is_searched_recursively_in_order_of_names(tmp_path: Path) -> None:
    for number, name in enumerate(["b.png", "a/z.png", "a/c.PNG", "c/.hidden.png"]):
        _write(tmp_path / name, number)
    (tmp_path / "notes.txt").write_text("not an image")
    bank = open_textures(str(tmp_path))
    assert isinstance(bank, texture_bank.FolderTextures)
    assert [path.relative_to(tmp_path).as_posix() for path in bank.paths] == ["a/c.PNG", "a/z.png", "b.png"]
    assert len(bank) == 3
    assert bank.texture(2).size == (30, 20)


def test_a_large_texture_is_shrunk(tmp_path: Path) -> None:
    _write(tmp_path / "large.png", 0, (300, 1024))
    assert open_textures(str(tmp_path)).texture(0).size == (512, 150)


def test_the_cache_of_decoded_textures_is_bounded(tmp_path: Path) -> None:
    for number in range(texture_bank.CACHED_FILES + 5):
        _write(tmp_path / f"{number:03}.png", number, (2, 2))
    bank = open_textures(str(tmp_path))
    for number in range(len(bank)):
        bank.texture(number)
    assert texture_bank._decode.cache_info().currsize == texture_bank.CACHED_FILES


def test_a_missing_folder_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder of textures"):
        open_textures(str(tmp_path / "dtd"))


def test_a_folder_without_images_raises_an_error(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("soon")
    with pytest.raises(InputError, match="contains no texture images"):
        open_textures(str(tmp_path))


def test_an_unreadable_texture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"<html>404</html>")
    with pytest.raises(InputError, match=r"broken\.png: cannot be decoded"):
        open_textures(str(tmp_path)).texture(0)


@pytest.mark.parametrize("folder", [True, False])
def test_a_bank_can_be_pickled(tmp_path: Path, folder: bool) -> None:
    _write(tmp_path / "a.png", 0)
    bank = open_textures(str(tmp_path) if folder else "")
    copy = pickle.loads(pickle.dumps(bank))
    np.testing.assert_array_equal(np.asarray(copy.texture(0)), np.asarray(bank.texture(0)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (300, 3)])
def test_a_texture_of_any_shape_covers_a_box_of_any_shape(tmp_path: Path, shape: tuple[int, int]) -> None:
    _write(tmp_path / "a.png", 0, shape)
    bank = open_textures(str(tmp_path))
    for box in (Box(0, 0, 50, 20), Box(49, 19, 50, 20), Box(3, 5, 20, 6)):
        for seed in range(20):
            source = texture_source(bank, 50, 20, box, np.random.default_rng(seed))
            assert source.shape == (box.bottom - box.top, box.right - box.left, 3)
