"""Banks of textures that anomalies are filled from: procedural ones, or the images in a folder."""

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from inandout.data.images import IMAGE_SUFFIXES, read_image
from inandout.data.surfaces.textures import draw_texture
from inandout.errors import InputError

PROCEDURAL_TEXTURES = 64
PROCEDURAL_SIDE = 256
"""Width and height of a procedural texture in pixels."""
MAX_SIDE = 512
"""Textures of a folder are shrunk to this many pixels on their longer side."""
CACHED_FILES = 64
"""Textures of folders kept decoded in a process, at most 1 MB each."""


class TextureBank(Protocol):
    """Textures by number. Texture k is the same in every process, so that an anomaly is too."""

    def __len__(self) -> int:
        """Number of textures, at least 1."""

    def texture(self, index: int) -> Image.Image:
        """Texture `index` as an RGB image of any size; not to be changed."""


@dataclass(frozen=True)
class ProceduralTextures:
    """Textures drawn by `inandout.data.surfaces`, each on first use and from a fixed seed."""

    count: int = PROCEDURAL_TEXTURES

    def __len__(self) -> int:
        return self.count

    def texture(self, index: int) -> Image.Image:
        """Texture `index`, 256x256."""
        return _draw(index)


@dataclass(frozen=True)
class FolderTextures:
    """Images of a folder, such as DTD (Cimpoi et al. 2014), decoded when they are used."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def texture(self, index: int) -> Image.Image:
        """Texture `index`, at most 512 pixels long.

        Raises:
            InputError: the file cannot be read; the message names it.
        """
        return _decode(self.paths[index])


def open_textures(folder: str) -> TextureBank:
    """The bank that `MemSegConfig.textures` names: the folder's images, in the order of their names, or ours if "".

    Raises:
        InputError: no such folder, or no image in it.
    """
    if not folder:
        return ProceduralTextures()
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of textures; give an existing one, or none for procedural textures")
    found = [path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    if not found:
        raise InputError(f"{root}: holds no texture images; allowed are {', '.join(sorted(IMAGE_SUFFIXES))}")
    return FolderTextures(tuple(sorted(found, key=lambda path: path.relative_to(root).as_posix())))


@cache
def _draw(index: int) -> Image.Image:
    return Image.fromarray(draw_texture(PROCEDURAL_SIDE, PROCEDURAL_SIDE, np.random.default_rng(index)))


@lru_cache(maxsize=CACHED_FILES)
def _decode(path: Path) -> Image.Image:
    image = Image.fromarray(read_image(path))
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return image
