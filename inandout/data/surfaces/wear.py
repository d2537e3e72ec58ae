"""Harmless marks on good parts: hairlines, dust and smudges.

Without them every sharp edge on a smooth surface would be a defect, and an edge detector would solve the task.
"""

from collections.abc import Callable

import numpy as np

from inandout.data.surfaces.fields import Field, smooth
from inandout.data.surfaces.marks import Mark, Site, apply, cover_of, distance
from inandout.data.surfaces.strokes import dot, scratch_path, strokes

_MEAN_COUNT = 1.6


def wear(before: Field, unit: float, light: tuple[float, float], rng: np.random.Generator) -> Field:
    """Draw a few harmless marks on a surface (H, W, 3) in 0..255."""
    height, width = before.shape[:2]
    brightness = float(before.mean())
    for _ in range(int(rng.poisson(_MEAN_COUNT))):
        centre = (float(rng.uniform(0, width - 1)), float(rng.uniform(0, height - 1)))
        site = Site((height, width), centre, unit, min(height, width), 1.0, brightness, rng)
        mark = _HARMLESS[rng.integers(len(_HARMLESS))](site)
        before, _ = apply(mark, before, float(rng.uniform(0.3, 1)), light)
    return before


def _hairline(site: Site) -> Mark:
    """Draw a short, thin line, slightly darker or brighter than the surface."""
    length = site.extent * site.rng.uniform(0.1, 0.4)
    path = scratch_path(site.centre, length, site.rng.uniform(0, np.pi), 0.7 * site.unit, site.rng, first=True)
    gap = strokes(site.shape, [path])
    core = np.clip(np.float32(0.6) - gap, 0, 1)
    return Mark(cover_of(gap, 0.5), 1, tone=np.float32(site.rng.choice([-0.28, 0.24])) * core)


def _dust(site: Site) -> Mark:
    """Draw one to five tiny grains, smaller than pits and spots."""
    count = int(site.rng.integers(1, 6))
    centres = np.array(site.centre) + site.rng.normal(0, 0.2 * site.extent, (count, 2))
    radii = site.rng.uniform(0.3, 0.75, count) * site.unit
    gap = strokes(site.shape, [dot(point, radius) for point, radius in zip(centres, radii, strict=True)])
    core = np.clip(np.float32(0.6) - gap, 0, 1)
    return Mark(cover_of(gap, 0.5), count, tone=np.float32(site.rng.choice([-0.4, 0.3])) * core)


def _smudge(site: Site) -> Mark:
    """Draw a soft patch, slightly darker or brighter, without the edge of a stain."""
    radius = site.extent * site.rng.uniform(0.12, 0.35)
    ragged = np.float32(0.15) * smooth(site.shape, site.rng, 0.4 * radius)
    inside = np.clip(1 - distance(site, radius, site.rng.uniform(1, 2.5)) + ragged, 0, 1)
    return Mark(inside, 1, tone=float(site.rng.choice([-0.16, 0.14])))


_HARMLESS: tuple[Callable[[Site], Mark], ...] = (_hairline, _dust, _smudge)
