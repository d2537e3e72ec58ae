"""Marks on a surface: position, effect, and rendering."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inandout.data.images import Mask
from inandout.data.surfaces.fields import Field, Shape, pixel_grid, slope

Colour = tuple[int, int, int]


class Site(NamedTuple):
    """Position and size of a mark."""

    shape: Shape
    """(H, W) of the image in px."""
    centre: tuple[float, float]
    """(x, y) in px."""
    unit: float
    """Size of one unit of texture in px."""
    extent: float
    """Shorter side of the image in px, times `size`."""
    size: float
    """Scale factor of the size word."""
    brightness: float
    """Mean level of the surface, 0..255."""
    rng: np.random.Generator


@dataclass(frozen=True)
class Mark:
    """Effect of a mark on a surface at contrast 1; fields are (H, W)."""

    cover: Field
    """0 outside the mark, rising to 1 just inside it; the mask is `cover > 0`."""
    count: int
    """Number of cracks, scratches, pits and so on."""
    tone: Field | float = 0.0
    """Relative change of brightness."""
    dye: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors of `tone` for red, green and blue."""
    height: Field | None = None
    """Height in px, negative for a hollow, shaded by the light."""
    paint: Field | float = 0.0
    """Opacity of the paint, 0..1."""
    colour: Colour = (0, 0, 0)
    """Colour of the paint."""


def apply(mark: Mark, before: Field, contrast: float, light: tuple[float, float]) -> tuple[Field, Mask]:
    """Apply a mark to a surface (H, W, 3) in 0..255; return the image and the mask of changed pixels."""
    change = before * _with_channel_axis(mark.tone) * np.array(mark.dye, dtype=np.float32)
    if mark.height is not None:
        change += (np.float32(25) + np.float32(0.75) * before) * slope(mark.height, light)[:, :, None]
    paint = _with_channel_axis(mark.paint)
    change += paint * (np.array(mark.colour, dtype=np.float32) - before)
    after = before + np.float32(contrast) * mark.cover[:, :, None] * change
    return np.clip(after, 0, 255), mark.cover > 0


def _with_channel_axis(field: Field | float) -> Field:
    """Add a channel axis to a field (H, W) or a number."""
    return np.asarray(field, dtype=np.float32)[..., None]


def cover_of(gap: Field, margin: float) -> Field:
    """Return 1 on the strokes, falling to 0 at `margin` + 0.5 px outside them."""
    return np.clip(np.float32(margin + 0.5) - gap, 0, 1)


def distance(site: Site, radius: float, stretch: float) -> Field:
    """Return the elliptic distance (H, W) from the centre, relative to `radius`; `stretch` is the aspect ratio."""
    y, x = pixel_grid(site.shape)
    angle = site.rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = x - np.float32(site.centre[0]), y - np.float32(site.centre[1])
    along, across = (x * cos + y * sin) / np.float32(stretch**0.5), (y * cos - x * sin) * np.float32(stretch**0.5)
    return np.asarray(np.hypot(along, across) / np.float32(radius), dtype=np.float32)
