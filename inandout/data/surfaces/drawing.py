"""One image of a surface, with or without a defect, from a seed."""

from dataclasses import dataclass, replace

import numpy as np

from inandout.data.images import ImageArray, Mask
from inandout.data.surfaces.defects import CONTRASTS, DEFECTS, KINDS, SIZES
from inandout.data.surfaces.fields import Field
from inandout.data.surfaces.lighting import LIGHTINGS, PALETTES, Lamp, expose, light_up
from inandout.data.surfaces.marks import Site, apply
from inandout.data.surfaces.textures import MATERIALS, SURFACES, Canvas
from inandout.data.surfaces.wear import wear
from inandout.errors import InputError
from inandout.seeds import SurfaceStream, generator

SMALLEST = 16
"""Least width and height of an image in px."""


@dataclass(frozen=True)
class Surface:
    """An image of a surface, and what was drawn."""

    image: ImageArray
    """(H, W, 3) uint8."""
    mask: Mask
    """(H, W), true on the defect; all false without one."""
    surface: str
    """One of `SURFACES`."""
    colour: str
    """One of the words of `COLOURS`."""
    lighting: str
    """One of `LIGHTINGS`."""
    defect: str = ""
    """One of `KINDS`, or "" for none; then what follows is empty, too."""
    size: str = ""
    """One of the words of `SIZES`."""
    contrast: str = ""
    """One of the words of `CONTRASTS`."""
    count: int = 0
    """How many cracks, scratches, pits and so on; some may lie outside the image or on one another."""


def draw_surface(
    width: int, height: int, seed: int, defect: str = "", surface: str | None = None, product: int | None = None
) -> Surface:
    """Draw one image: a pure function of its arguments.

    A defect is drawn onto the image that the same arguments without it give, and changes it only inside the mask.

    Args:
        width: at least 16 px.
        height: at least 16 px.
        seed: 0 or more.
        defect: one of `KINDS`, or "" for a surface without defect.
        surface: one of `SURFACES`; `None` draws it from the seed.
        product: seed of what the parts of one product share (colour, texture scale, direction of the light); `None`
            draws it from `seed`, so that every image is of a product of its own.

    Raises:
        InputError: an argument outside what is allowed.
    """
    _check(width, height, seed, defect, surface)
    shape, unit = (height, width), max((min(width, height) / 64) ** 0.5, 0.5)
    background, described, lamp, roughness = _background(shape, unit, seed, surface, product)
    if not defect:
        return described
    rng = generator(seed, SurfaceStream.DEFECT, KINDS.index(defect))
    size, contrast = _word(SIZES, (0.35, 0.4, 0.25), rng), _word(CONTRASTS, (0.3, 0.42, 0.28), rng)
    centre = (float(rng.uniform(0.15, 0.85) * (width - 1)), float(rng.uniform(0.12, 0.88) * (height - 1)))
    brightness = float(background.mean())
    mark = DEFECTS[defect](Site(shape, centre, unit, min(shape) * SIZES[size], SIZES[size], brightness, rng))
    # A rough surface hides more than a smooth one, so that the same word needs more contrast on it.
    strength = CONTRASTS[contrast] * (0.8 + 3 * roughness) * float(np.exp(rng.normal(0, 0.08)))
    after, mask = apply(mark, background, strength, lamp.direction)
    image = np.rint(after).astype(np.uint8)
    return replace(described, image=image, mask=mask, defect=defect, size=size, contrast=contrast, count=mark.count)


def _background(
    shape: tuple[int, int], unit: float, seed: int, surface: str | None, product: int | None
) -> tuple[Field, Surface, Lamp, float]:
    """The surface before rounding, the same described, its light, and the standard deviation of its tone."""
    rng = generator(seed, SurfaceStream.BACKGROUND)
    style = generator(seed, SurfaceStream.STYLE) if product is None else generator(product, SurfaceStream.PRODUCT)
    surface = surface or str(rng.choice(SURFACES))
    colour, angle = str(style.choice(PALETTES[surface])), style.uniform(0, 2 * np.pi)
    lamp = light_up(shape, str(rng.choice(LIGHTINGS)), angle + rng.normal(0, 0.15), rng)
    tone = MATERIALS[surface](Canvas(shape, unit, lamp.direction, style, rng)) * np.float32(np.exp(rng.normal(0, 0.1)))
    background = wear(expose(tone, surface, colour, lamp, rng), unit, lamp.direction, rng)
    image = np.rint(background).astype(np.uint8)
    described = Surface(image, np.zeros(shape, dtype=np.bool_), surface, colour, lamp.lighting)
    return background, described, lamp, float(tone.std())


def _word(words: dict[str, float], shares: tuple[float, ...], rng: np.random.Generator) -> str:
    return str(rng.choice(list(words), p=shares))


def _check(width: int, height: int, seed: int, defect: str, surface: str | None) -> None:
    if min(width, height) < SMALLEST:
        raise InputError(f"a surface of {width}x{height} px is too small; give at least {SMALLEST} px each way")
    if seed < 0:
        raise InputError(f"seed {seed} is negative; give 0 or more")
    if defect and defect not in KINDS:
        raise InputError(f"unknown defect {defect!r}; allowed are {', '.join(KINDS)}, or '' for none")
    if surface is not None and surface not in SURFACES:
        raise InputError(f"unknown surface {surface!r}; allowed are {', '.join(SURFACES)}")
