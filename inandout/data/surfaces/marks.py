"""A mark on a surface: where it is, what it does, and putting it onto an image."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inandout.data.images import Mask
from inandout.data.surfaces.fields import Field, Shape, pixel_grid, slope

Colour = tuple[int, int, int]


class Site(NamedTuple):
    """Where and how large a defect is to be."""

    shape: Shape
    """(H, W) of the image in px."""
    centre: tuple[float, float]
    """(x, y) in px."""
    unit: float
    """Size of one unit of texture in px."""
    extent: float
    """Shorter side of the image in px, times the factor of the size word."""
    size: float
    """The factor of the size word."""
    brightness: float
    """Mean level of the surface, 0..255."""
    rng: np.random.Generator


@dataclass(frozen=True)
class Mark:
    """What a defect does to a surface, at contrast 1; fields are (H, W)."""

    cover: Field
    """0 where the defect is not, rising to 1 just inside it: the mask is where this is above 0."""
    count: int
    """How many cracks, scratches, pits and so on."""
    tone: Field | float = 0.0
    """Change of brightness, relative to the surface, for each of red, green and blue times `dye`."""
    dye: tuple[float, float, float] = (1.0, 1.0, 1.0)
    height: Field | None = None
    """Height in px, negative for a hollow, which the light then shades."""
    paint: Field | float = 0.0
    """Opacity, 0..1, of what lies on the surface."""
    colour: Colour = (0, 0, 0)
    """Colour of what lies on the surface."""


def apply(mark: Mark, before: Field, contrast: float, light: tuple[float, float]) -> tuple[Field, Mask]:
    """Put a mark onto a surface, (H, W, 3) in 0..255; gives the image and the mask, outside which nothing changed."""
    change = before * _deep(mark.tone) * np.array(mark.dye, dtype=np.float32)
    if mark.height is not None:
        change += (np.float32(25) + np.float32(0.75) * before) * slope(mark.height, light)[:, :, None]
    paint = _deep(mark.paint)
    change += paint * (np.array(mark.colour, dtype=np.float32) - before)
    after = before + np.float32(contrast) * mark.cover[:, :, None] * change
    return np.clip(after, 0, 255), mark.cover > 0


def _deep(field: Field | float) -> Field:
    """A field (H, W) or one number, ready to be multiplied with an image."""
    return np.asarray(field, dtype=np.float32)[..., None]


def cover_of(gap: Field, margin: float) -> Field:
    """1 on the strokes, falling to 0 at `margin` + 0.5 px outside them."""
    return np.clip(np.float32(margin + 0.5) - gap, 0, 1)


def distance(site: Site, radius: float, stretch: float) -> Field:
    """Distance from the centre relative to `radius`, in an ellipse that is `stretch` times as long as it is wide."""
    y, x = pixel_grid(site.shape)
    angle = site.rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = x - np.float32(site.centre[0]), y - np.float32(site.centre[1])
    along, across = (x * cos + y * sin) / np.float32(stretch**0.5), (y * cos - x * sin) * np.float32(stretch**0.5)
    return np.asarray(np.hypot(along, across) / np.float32(radius), dtype=np.float32)
