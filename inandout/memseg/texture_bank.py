"""Banks of textures for anomalies: procedural, or from a folder of images."""

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
"""Number of procedural textures."""
PROCEDURAL_SIDE = 256
"""Width and height of a procedural texture in pixels."""
MAX_SIDE = 512
"""Maximum longer side of a folder's texture in pixels; larger ones are shrunk."""
CACHED_FILES = 64
"""Maximum number of decoded textures cached per process, at most 1 MB each."""


class TextureBank(Protocol):
    """Textures by index, identical in every process."""

    def __len__(self) -> int:
        """Number of textures, at least 1."""

    def texture(self, index: int) -> Image.Image:
        """Return texture `index` as an RGB image of any size, which must not be modified."""


@dataclass(frozen=True)
class ProceduralTextures:
    """Textures of `inandout.data.surfaces`, drawn on first use from fixed seeds."""

    count: int = PROCEDURAL_TEXTURES

    def __len__(self) -> int:
        return self.count

    def texture(self, index: int) -> Image.Image:
        """Return texture `index`, 256x256 pixels."""
        return _draw(index)


@dataclass(frozen=True)
class FolderTextures:
    """Images of a folder, such as DTD (Cimpoi et al. 2014), decoded on use."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def texture(self, index: int) -> Image.Image:
        """Return texture `index`, with a longer side of at most 512 pixels.

        Raises:
            InputError: the file cannot be read.
        """
        return _decode(self.paths[index])


def open_textures(folder: str) -> TextureBank:
    """Return the bank for `MemSegConfig.textures`: the folder's images by name, or procedural textures for "".

    Raises:
        InputError: the folder does not exist or contains no images.
    """
    if not folder:
        return ProceduralTextures()
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of textures; give an existing folder, or '' for procedural textures")
    found = [path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    if not found:
        raise InputError(f"{root}: contains no texture images; add files of type {', '.join(sorted(IMAGE_SUFFIXES))}")
    return FolderTextures(tuple(sorted(found, key=lambda path: path.relative_to(root).as_posix())))


@cache
def _draw(index: int) -> Image.Image:
    return Image.fromarray(draw_texture(PROCEDURAL_SIDE, PROCEDURAL_SIDE, np.random.default_rng(index)))


@lru_cache(maxsize=CACHED_FILES)
def _decode(path: Path) -> Image.Image:
    image = Image.fromarray(read_image(path))
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return image
