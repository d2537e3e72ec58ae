"""The defect kinds: where and how each darkens, paints or deforms a surface."""

from collections.abc import Callable

import numpy as np

from inandout.data.surfaces.fields import smooth
from inandout.data.surfaces.marks import Colour, Mark, Site, cover_of, distance
from inandout.data.surfaces.strokes import crack_paths, dot, scratch_path, strokes

SIZES: dict[str, float] = {"small": 0.55, "medium": 1.0, "large": 1.55}
"""Size word to scale factor of the defect's size."""

CONTRASTS: dict[str, float] = {"faint": 0.26, "clear": 0.75, "strong": 1.25}
"""Contrast word to scale factor of the defect's contrast."""

_DYES = ((0.6, 0.8, 1.0), (0.8, 0.85, 0.9), (0.45, 0.65, 1.0), (1.0, 0.8, 0.55))
"""Absorption of red, green and blue by dried coffee, oil, rust and blue coolant."""
_RESIDUE: Colour = (205, 198, 180)
"""Colour of a stain on a surface too dark to show absorption."""
_SPOT_COLOURS: tuple[Colour, ...] = ((250, 250, 245), (18, 18, 22), (140, 50, 15), (235, 215, 120))


def cracked(site: Site) -> Mark:
    """Draw branching, tapering cracks with a dark core and a lit edge."""
    paths = crack_paths(site.centre, 0.8 * site.extent, site.unit, site.rng)
    gap = strokes(site.shape, paths)
    core = np.clip(np.float32(0.75) - gap, 0, 1)
    depth = np.float32(-0.9 * site.unit) * core
    return Mark(cover_of(gap, 1.4 * site.unit**0.5), len(paths), tone=-0.7 * core, height=depth)


def scratched(site: Site) -> Mark:
    """Draw one to four nearly parallel, straight, bright lines with a dark side."""
    shape, centre, unit, extent, _, _, rng = site
    count, angle = int(rng.integers(1, 5)), rng.uniform(0, np.pi)
    paths = [scratch_path(centre, extent * rng.uniform(0.45, 1.1), angle, unit, rng, first=not i) for i in range(count)]
    gap = strokes(shape, paths)
    core = np.clip(np.float32(0.7) - gap, 0, 1)
    wear = np.clip(np.float32(0.85) + np.float32(0.2) * smooth(shape, rng, 3 * unit), 0.3, 1)
    cover, bright = cover_of(gap, 1.0 * unit**0.5), np.float32(0.7) * core * wear
    return Mark(cover, count, height=np.float32(-0.5) * core, paint=bright, colour=(255, 255, 255))


def pitted(site: Site) -> Mark:
    """Draw a cluster of small dark holes with a lit rim."""
    shape, centre, unit, extent, size, _, rng = site
    count = int(rng.integers(6, 14) * size) + 1
    centres = np.array(centre) + rng.normal(0, 0.1 * extent, (count, 2))
    centres[0] = centre
    radii = np.clip(np.exp(rng.normal(0.05, 0.35, count)), 0.6, 2.2) * unit
    gap = strokes(shape, [dot(point, radius) for point, radius in zip(centres, radii, strict=True)])
    hole = np.clip((np.float32(0.4) - gap) / np.float32(unit), 0, 1)
    return Mark(cover_of(gap, 1.3 * unit), count, tone=-0.7 * hole, height=np.float32(-0.9 * unit) * hole)


def stained(site: Site) -> Mark:
    """Draw a soft, irregular blot of dried liquid, darkest along its edge."""
    shape, _, _, extent, _, _, rng = site
    radius = max(0.21 * extent, 2.5)
    ragged = np.float32(0.13) * smooth(shape, rng, 0.4 * radius) + np.float32(0.06) * smooth(shape, rng, 0.12 * radius)
    radial = distance(site, radius, rng.uniform(1.0, 1.5)) + ragged
    inside = np.clip((1 - radial) / np.float32(0.3), 0, 1)
    ring = np.exp(-(((radial - np.float32(0.8)) / np.float32(0.1)) ** 2))
    body = np.float32(0.36) + np.float32(0.08) * smooth(shape, rng, 0.3 * radius)
    strength = inside * np.clip(body + np.float32(rng.uniform(0.15, 0.4)) * ring, 0, 1)
    dye = _DYES[rng.integers(len(_DYES))]
    cover = np.clip(inside * 4, 0, 1)
    if site.brightness < 75:
        return Mark(cover, 1, paint=np.float32(0.55) * strength, colour=_RESIDUE)
    return Mark(cover, 1, tone=-strength, dye=dye)


def dented(site: Site) -> Mark:
    """Draw a smooth hollow with one bright and one dark side."""
    radius = max(0.23 * site.extent, 2.5)
    radial = distance(site, radius, site.rng.uniform(1.0, 1.6))
    bowl = np.clip(1 - radial**2, 0, 1)
    depth = np.float32(-0.34 * radius) * bowl**2
    return Mark(np.clip(bowl * 6, 0, 1), 1, tone=-0.05 * bowl, height=depth)


def spotted(site: Site) -> Mark:
    """Draw several scattered, round, flat specks of one colour."""
    shape, centre, unit, extent, size, brightness, rng = site
    visible = [colour for colour in _SPOT_COLOURS if abs(sum(colour) / 3 - brightness) > 60]
    colour = visible[rng.integers(len(visible))]
    count = int(rng.integers(3, 9))
    centres = np.array(centre) + rng.uniform(-0.3, 0.3, (count, 2)) * max(extent, 8)
    centres[0] = centre
    radii = rng.uniform(1.7, 3.4, count) * unit * size**0.7
    gap = strokes(shape, [dot(point, radius) for point, radius in zip(centres, radii, strict=True)])
    flat = np.clip((np.float32(0.5) - gap) / np.float32(1.2), 0, 1)
    return Mark(cover_of(gap, 0.6), count, paint=np.float32(0.72) * flat, colour=colour)


DEFECTS: dict[str, Callable[[Site], Mark]] = {
    "cracked": cracked,
    "scratched": scratched,
    "pitted": pitted,
    "stained": stained,
    "dented": dented,
    "spotted": spotted,
}
