"""Ten colour and geometry operations that turn an image into a source of structure anomalies.

MemSeg lists mirroring, rotation, brightness, saturation and hue; public implementations draw 3 of the ten below.
Mirroring is part of `rotate`. All operations map RGB to RGB.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

Operation = Callable[[Image.Image, np.random.Generator], Image.Image]

_LEVELS = np.arange(256)


def gamma(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Raise each channel, scaled to 0..1, to an independent power in 0.5..2, log-uniform."""
    powers = 2.0 ** rng.uniform(-1, 1, 3)
    return _map_levels(image, 255 * (_LEVELS / 255) ** powers[:, None])


def brightness(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Multiply all levels by 0.8..1.2 and add -30..30."""
    return _map_levels(image, rng.uniform(0.8, 1.2) * _LEVELS + rng.uniform(-30, 30))


def sharpness(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur or sharpen with Pillow's factor in 0.1 (blurred) to 1.9 (sharpened)."""
    return ImageEnhance.Sharpness(image).enhance(rng.uniform(0.1, 1.9))


def hue_and_saturation(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add -50..50 of 256 levels to the hue, with wrap-around, and to the saturation."""
    hue, saturation = rng.uniform(-50, 50, 2)
    tables = np.stack([(_LEVELS + round(hue)) % 256, _LEVELS + saturation, _LEVELS])
    return _map_levels(image.convert("HSV"), tables).convert("RGB")


def solarize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Invert levels at or above a threshold in 32..128."""
    return ImageOps.solarize(image, int(rng.integers(32, 128, endpoint=True)))


def posterize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Keep the 2 to 5 highest bits of each level."""
    return ImageOps.posterize(image, int(rng.integers(2, 5, endpoint=True)))


def invert(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Invert all levels."""
    return ImageOps.invert(image)


def autocontrast(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Stretch each channel to 0..255 after clipping 0..20 % of the pixels at each end."""
    return ImageOps.autocontrast(image, rng.uniform(0, 20))


def equalize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Equalise the histogram of each channel."""
    return ImageOps.equalize(image)


def rotate(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirror with probability 0.5, then rotate by -45..45 degrees; empty corners keep their original pixels."""
    mirrored = ImageOps.mirror(image) if rng.random() < 0.5 else image
    degrees = rng.uniform(-45, 45)
    inside = Image.new("L", image.size, 255).rotate(degrees)
    return Image.composite(mirrored.rotate(degrees, Image.Resampling.BILINEAR), image, inside)


OPERATIONS: tuple[Operation, ...] = (
    gamma,
    brightness,
    sharpness,
    hue_and_saturation,
    solarize,
    posterize,
    invert,
    autocontrast,
    equalize,
    rotate,
)


def _map_levels(image: Image.Image, levels: npt.NDArray[np.floating]) -> Image.Image:
    """Map level v of channel c to levels[c, v], or to levels[v] for (256,) levels; rounded and clipped to 0..255."""
    tables = np.broadcast_to(np.rint(levels).clip(0, 255).astype(int), (3, 256))
    return image.point(tables.ravel().tolist())
