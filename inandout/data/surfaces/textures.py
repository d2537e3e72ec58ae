"""The tone of each material, before colour and lighting."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from inandout.data.config import SURFACES
from inandout.data.images import ImageArray
from inandout.data.surfaces.fields import (
    Field,
    Shape,
    bumps,
    cloud,
    pixel_grid,
    profile,
    slope,
    smooth,
    streaks,
)


class Canvas(NamedTuple):
    """Inputs for drawing a material."""

    shape: Shape
    """(H, W) in px."""
    unit: float
    """Size of one unit of texture in px: 1 for an image of 64 px, more for a larger one."""
    light: tuple[float, float]
    """Unit vector (x, y) towards the light."""
    style: np.random.Generator
    """Generator for properties that all parts of one product share, such as thread width and grinding direction."""
    rng: np.random.Generator
    """Generator for properties that vary between parts."""


def brushed(canvas: Canvas) -> Field:
    """Draw metal brushed in one direction: fine and broad streaks."""
    shape, unit, _, style, rng = canvas
    angle = style.choice([0.0, np.pi / 2]) + style.normal(0, 0.04) + rng.normal(0, 0.015)
    length = style.uniform(18, 45)
    fine = streaks(shape, rng, length * unit, 0.75 * unit**0.5, angle)
    broad = streaks(shape, rng, 2 * length * unit, style.uniform(2.0, 4.0) * unit, angle)
    return np.float32(style.uniform(0.05, 0.085)) * fine + np.float32(style.uniform(0.02, 0.05)) * broad


def ground(canvas: Canvas) -> Field:
    """Draw steel ground with a wheel: two families of crossing arcs."""
    shape, unit, _, style, rng = canvas
    reach = max(shape) * style.uniform(1.2, 2.5)
    spread = style.uniform(0.25, 0.7)
    side = style.uniform(0, 2 * np.pi)
    first = _arcs(shape, rng, unit, reach, side - spread / 2)
    second = _arcs(shape, rng, unit, reach, side + np.pi * style.integers(2) + spread / 2)
    wear = np.float32(0.5) + np.float32(0.15) * smooth(shape, rng, 9 * unit)
    return np.float32(style.uniform(0.07, 0.11)) * (first * wear + second * (1 - wear))


def grained(canvas: Canvas) -> Field:
    """Draw leather: pebbles between dark creases."""
    shape, unit, light, style, rng = canvas
    wavelength = style.uniform(11.0, 16.0) * unit
    # The zero lines of one field meander; the zero lines of two fields together enclose cells, as in leather.
    first, second = bumps(shape, rng, wavelength, 0.3), bumps(shape, rng, wavelength, 0.3)
    pebbles: Field = np.minimum(np.abs(first), np.abs(second))
    creases = np.exp(-((pebbles / np.float32(style.uniform(0.15, 0.25))) ** 2))
    lit = slope(np.float32(-1.2 * unit) * creases + np.float32(1.5 * unit) * pebbles, light)
    worn = cloud(shape, rng, 1.8, 2.0 * unit)
    return np.float32(0.10) * (lit - creases + np.float32(0.3)) + np.float32(0.03) * worn


def woven(canvas: Canvas) -> Field:
    """Draw cloth: a plain or a twill weave of slightly uneven threads."""
    shape, unit, light, style, rng = canvas
    pitch, twill, angle = style.uniform(5.0, 8.0) * unit, bool(style.integers(2)), style.normal(0, 0.06)
    y, x = pixel_grid(shape)
    sway = np.float32(0.12 * pitch) * smooth(shape, rng, 14 * unit)
    across = (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) + sway) / np.float32(pitch)
    down = (y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle)) + sway) / np.float32(pitch)
    column, row = np.floor(across).astype(np.int16), np.floor(down).astype(np.int16)
    from_warp, from_weft = across - np.floor(across) - np.float32(0.5), down - np.floor(down) - np.float32(0.5)
    warp_on_top = (column + row) % 4 < 2 if twill else (column + row) % 2 == 0
    rounded = np.where(warp_on_top, from_warp, from_weft) ** 2
    arched = np.where(warp_on_top, from_weft, from_warp) ** 2
    thread = 1 - np.float32(3.2) * rounded - np.float32(0.8 if twill else 1.8) * arched
    height: Field = thread.astype(np.float32, copy=False)
    warp, weft = rng.standard_normal(256, dtype=np.float32), rng.standard_normal(256, dtype=np.float32)
    dyed = np.where(warp_on_top, warp[column % 256], weft[row % 256] + np.float32(style.normal(0, 1)))
    lit = slope(height * np.float32(0.35 * unit), light)
    return np.float32(0.13) * (height - np.float32(0.6)) + np.float32(0.25) * lit + np.float32(0.025) * dyed


def concrete(canvas: Canvas) -> Field:
    """Draw concrete: cloudy, sandy, with a few shallow pores."""
    shape, unit, light, style, rng = canvas
    mottled = cloud(shape, rng, style.uniform(1.3, 1.7), 1.0 * unit**0.5)
    sand = bumps(shape, rng, style.uniform(3.2, 4.2) * unit, 0.6)
    pores = np.clip(bumps(shape, rng, 7.0 * unit, 0.5) - np.float32(2.4), 0, 1)
    lit = slope(sand * np.float32(0.3 * unit) - pores * np.float32(1.5 * unit), light)
    speckled = np.float32(0.022) * sand + np.float32(0.05) * lit - np.float32(0.1) * pores
    return np.float32(style.uniform(0.055, 0.08)) * mottled + speckled


def cast(canvas: Canvas) -> Field:
    """Draw cast iron: round bumps of the sand mould, lit from one side."""
    shape, unit, light, style, rng = canvas
    sand = bumps(shape, rng, style.uniform(5.0, 8.5) * unit, 0.5)
    skin = cloud(shape, rng, 1.5, 1.5 * unit)
    relief = slope((sand + np.float32(0.12) * sand**2) * np.float32(unit), light)
    return np.float32(style.uniform(0.10, 0.15)) * relief + np.float32(0.035) * skin


def wooden(canvas: Canvas) -> Field:
    """Draw planed wood: growth rings cut lengthwise, and fibres."""
    shape, unit, _, style, rng = canvas
    angle = np.pi / 2 * (shape[0] > shape[1]) + style.normal(0, 0.03) + rng.normal(0, 0.02)
    y, x = pixel_grid(shape)
    across = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    drift = streaks(shape, rng, 40 * unit, 9 * unit, angle)
    ring = style.uniform(7.0, 13.0) * unit
    rings = (across + np.float32(0.5 * ring) * drift) / np.float32(ring) + np.float32(rng.uniform(0, 9))
    phase = rings - np.floor(rings)
    late = phase**3 * np.minimum(1, (1 - phase) * np.float32(6))
    fibres = streaks(shape, rng, 12 * unit, 0.75 * unit**0.5, angle)
    return np.float32(0.10) - np.float32(0.42) * late + np.float32(0.045) * fibres


def ceramic(canvas: Canvas) -> Field:
    """Draw glazed ceramic: almost smooth, slightly wavy, with the reflection of a long lamp."""
    shape, unit, light, style, rng = canvas
    glaze = cloud(shape, rng, 2.0, 2.0 * unit)
    relief = smooth(shape, rng, style.uniform(4.0, 7.0) * unit)
    waves = slope(relief * np.float32(4 * unit), light)
    y, x = pixel_grid(shape)
    towards = (x * np.float32(light[0]) + y * np.float32(light[1])) / np.float32(max(shape))
    distance = np.abs(towards - np.float32(rng.uniform(-0.2, 0.9)) + np.float32(0.012) * relief)
    lamp = np.clip((np.float32(rng.uniform(0.1, 0.18)) - distance) / np.float32(0.06), 0, 1)
    wavy = np.float32(0.012) * glaze + np.float32(style.uniform(0.02, 0.04)) * waves
    return wavy + np.float32(style.uniform(0.08, 0.18)) * lamp


MATERIALS: dict[str, Callable[[Canvas], Field]] = {
    "brushed": brushed,
    "ground": ground,
    "grained": grained,
    "woven": woven,
    "concrete": concrete,
    "cast": cast,
    "wooden": wooden,
    "ceramic": ceramic,
}
"""Name to the function that draws the tone (H, W) of a surface, relative to its brightness, mostly in -0.4..0.4."""


def draw_texture(width: int, height: int, rng: np.random.Generator) -> ImageArray:
    """Draw a random defect-free texture (height, width, 3), as a source of anomalies.

    Material, scale and colours vary more than in the surfaces of a dataset. With probability 0.4 two materials are
    combined.
    """
    image = _random_material(width, height, rng)
    if rng.random() < 0.4:
        shape = (height, width)
        edge = smooth(shape, rng, rng.uniform(0.06, 0.2) * min(shape)) + np.float32(rng.normal(0, 0.4))
        share = np.clip(edge * np.float32(rng.uniform(1, 20)) + np.float32(0.5), 0, 1)[:, :, None]
        image = image * (1 - share) + _random_material(width, height, rng) * share
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _random_material(width: int, height: int, rng: np.random.Generator) -> Field:
    """Draw one material between two random colours, (H, W, 3) in 0..255."""
    shape, angle = (height, width), rng.uniform(0, 2 * np.pi)
    unit = (min(shape) / 64) ** 0.5 * float(np.exp(rng.uniform(-0.5, 1.0)))
    canvas = Canvas(shape, unit, (float(np.cos(angle)), float(np.sin(angle))), rng, rng)
    tone = MATERIALS[SURFACES[rng.integers(len(SURFACES))]](canvas)
    tone = (tone - tone.mean()) / max(np.float32(tone.std()), np.float32(1e-6))
    mix = np.clip(np.float32(0.5) + np.float32(rng.uniform(0.12, 0.45)) * tone, 0, 1)[:, :, None]
    dark, light = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    image: Field = dark * (1 - mix) + light * mix
    return image


def _arcs(shape: Shape, rng: np.random.Generator, unit: float, reach: float, side: float) -> Field:
    """Draw circular grooves; their centre is `reach` px from the image centre in the direction `side` (radians)."""
    y, x = pixel_grid(shape)
    centre_x, centre_y = shape[1] / 2 + reach * np.cos(side), shape[0] / 2 + reach * np.sin(side)
    radius = np.hypot(x - np.float32(centre_x), y - np.float32(centre_y))
    radius -= radius.min()
    samples = int(2 * radius.max()) + 8
    grooves = profile(samples, rng, 1.6 * unit**0.5) + np.float32(0.6) * profile(samples, rng, 6 * unit)
    return np.interp(radius, np.arange(samples) / 2, grooves).astype(np.float32)
