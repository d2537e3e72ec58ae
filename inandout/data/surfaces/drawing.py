"""Draw one image of a surface, with or without a defect, from a seed."""

from dataclasses import dataclass, replace

import numpy as np

from inandout.data.config import KINDS, MIN_SIDE, SURFACES
from inandout.data.images import ImageArray, Mask
from inandout.data.surfaces.defects import CONTRASTS, DEFECTS, SIZES
from inandout.data.surfaces.fields import Field
from inandout.data.surfaces.lighting import LIGHTINGS, PALETTES, Lamp, expose, light_up
from inandout.data.surfaces.marks import Site, apply
from inandout.data.surfaces.textures import MATERIALS, Canvas
from inandout.data.surfaces.wear import wear
from inandout.errors import InputError
from inandout.seeds import SurfaceStream, generator


@dataclass(frozen=True)
class Surface:
    """An image of a surface, and its description."""

    image: ImageArray
    """(H, W, 3) uint8."""
    mask: Mask
    """(H, W), true on the defect; all false without a defect."""
    surface: str
    """One of `SURFACES`."""
    colour: str
    """One of the keys of `COLOURS`."""
    lighting: str
    """One of `LIGHTINGS`."""
    defect: str = ""
    """One of `KINDS`, or "" for no defect."""
    size: str = ""
    """One of the keys of `SIZES`, "" without a defect."""
    contrast: str = ""
    """One of the keys of `CONTRASTS`, "" without a defect."""
    count: int = 0
    """Number of cracks, scratches, pits and so on; some may be outside the image or overlap."""


def draw_surface(
    width: int, height: int, seed: int, defect: str = "", surface: str | None = None, product: int | None = None
) -> Surface:
    """Draw one image; the result depends on the arguments only.

    The image equals the image of the same arguments without a defect, except inside the mask.

    Args:
        width: at least 16 px.
        height: at least 16 px.
        seed: 0 or more.
        defect: one of `KINDS`, or "" for no defect.
        surface: one of `SURFACES`; `None` selects one by `seed`.
        product: seed of the properties that parts of one product share (colour, texture scale, light direction); `None`
            derives them from `seed`, so that each image shows a different product.

    Raises:
        InputError: an argument is out of range or unknown.
    """
    _check(width, height, seed, defect, surface)
    shape, unit = (height, width), max((min(width, height) / 64) ** 0.5, 0.5)
    background, clean, lamp, roughness = _background(shape, unit, seed, surface, product)
    if not defect:
        return clean
    rng = generator(seed, SurfaceStream.DEFECT, KINDS.index(defect))
    size, contrast = _draw_word(SIZES, (0.35, 0.4, 0.25), rng), _draw_word(CONTRASTS, (0.3, 0.42, 0.28), rng)
    centre = (float(rng.uniform(0.15, 0.85) * (width - 1)), float(rng.uniform(0.12, 0.88) * (height - 1)))
    brightness = float(background.mean())
    mark = DEFECTS[defect](Site(shape, centre, unit, min(shape) * SIZES[size], SIZES[size], brightness, rng))
    # Rough surfaces hide defects, so the same contrast word needs more contrast there.
    strength = CONTRASTS[contrast] * (0.8 + 3 * roughness) * float(np.exp(rng.normal(0, 0.08)))
    after, mask = apply(mark, background, strength, lamp.direction)
    image = np.rint(after).astype(np.uint8)
    return replace(clean, image=image, mask=mask, defect=defect, size=size, contrast=contrast, count=mark.count)


def _background(
    shape: tuple[int, int], unit: float, seed: int, surface: str | None, product: int | None
) -> tuple[Field, Surface, Lamp, float]:
    """Return the surface before rounding, its `Surface`, its light and the standard deviation of its tone."""
    rng = generator(seed, SurfaceStream.BACKGROUND)
    style = generator(seed, SurfaceStream.STYLE) if product is None else generator(product, SurfaceStream.PRODUCT)
    surface = surface or str(rng.choice(SURFACES))
    colour, angle = str(style.choice(PALETTES[surface])), style.uniform(0, 2 * np.pi)
    lamp = light_up(shape, str(rng.choice(LIGHTINGS)), angle + rng.normal(0, 0.15), rng)
    tone = MATERIALS[surface](Canvas(shape, unit, lamp.direction, style, rng)) * np.float32(np.exp(rng.normal(0, 0.1)))
    background = wear(expose(tone, surface, colour, lamp, rng), unit, lamp.direction, rng)
    image = np.rint(background).astype(np.uint8)
    clean = Surface(image, np.zeros(shape, dtype=np.bool_), surface, colour, lamp.lighting)
    return background, clean, lamp, float(tone.std())


def _draw_word(words: dict[str, float], shares: tuple[float, ...], rng: np.random.Generator) -> str:
    return str(rng.choice(list(words), p=shares))


def _check(width: int, height: int, seed: int, defect: str, surface: str | None) -> None:
    if min(width, height) < MIN_SIDE:
        raise InputError(f"the size is {width}x{height}, the minimum is {MIN_SIDE}x{MIN_SIDE}; use a larger one")
    if seed < 0:
        raise InputError(f"seed is {seed}; use 0 or more")
    if defect and defect not in KINDS:
        raise InputError(f"unknown defect {defect!r}; use one of {', '.join(KINDS)}, or '' for no defect")
    if surface is not None and surface not in SURFACES:
        raise InputError(f"unknown surface {surface!r}; use one of {', '.join(SURFACES)}")
