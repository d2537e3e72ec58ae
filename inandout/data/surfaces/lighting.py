"""Colour and light: from the tone of a material to a camera image."""

from typing import NamedTuple

import numpy as np

from inandout.data.surfaces.fields import Field, Shape, pixel_grid, smooth

COLOURS: dict[str, tuple[int, int, int]] = {
    "grey": (132, 134, 137),
    "silver": (172, 175, 179),
    "black": (64, 65, 70),
    "white": (192, 190, 185),
    "beige": (183, 164, 134),
    "brown": (121, 84, 58),
    "bronze": (156, 116, 70),
    "golden": (184, 151, 78),
    "red": (138, 56, 50),
    "green": (78, 110, 86),
    "blue": (72, 98, 136),
}
"""Colour word to RGB under even light, bright and dark enough to keep every defect visible."""

PALETTES: dict[str, tuple[str, ...]] = {
    "brushed": ("grey", "silver", "bronze", "golden", "blue"),
    "ground": ("grey", "silver", "bronze", "blue"),
    "grained": ("brown", "black", "beige", "red", "grey", "green"),
    "woven": ("beige", "blue", "green", "grey", "red", "white"),
    "concrete": ("grey", "beige", "white"),
    "cast": ("grey", "black", "bronze", "green", "blue"),
    "wooden": ("brown", "beige", "golden", "red"),
    "ceramic": ("white", "beige", "green", "blue", "red", "black"),
}
"""Surface to its possible colours."""

LIGHTINGS: tuple[str, ...] = ("even", "side", "spot", "dim")
"""Even light, light from one side, a spot with a visible centre, or underexposure."""

_GLOSS = {"brushed": 0.8, "ground": 0.7, "ceramic": 0.7, "cast": 0.3, "grained": 0.3}


class Lamp(NamedTuple):
    """Light on one image."""

    lighting: str
    """One of `LIGHTINGS`."""
    direction: tuple[float, float]
    """Unit vector (x, y) towards the light."""
    level: Field
    """Brightness (H, W), 1 on average under even light."""


def light_up(shape: Shape, lighting: str, angle: float, rng: np.random.Generator) -> Lamp:
    """Draw the light on a surface; `angle` is its direction in radians from x towards y."""
    y, x = pixel_grid(shape)
    direction = (float(np.cos(angle)), float(np.sin(angle)))
    across, down = x / np.float32(shape[1]) - np.float32(0.5), y / np.float32(shape[0]) - np.float32(0.5)
    towards = across * np.float32(direction[0]) + down * np.float32(direction[1])
    slant = {"side": rng.uniform(0.45, 0.75), "dim": rng.uniform(0.1, 0.25)}.get(lighting, rng.uniform(0, 0.12))
    level = np.float32(1) + np.float32(slant) * towards
    if lighting == "spot":
        spot_x, spot_y = rng.uniform(-0.35, 0.35, 2).astype(np.float32)
        reach = np.float32(rng.uniform(0.3, 0.45) ** -2)
        squared_distance = (across - spot_x) ** 2 + (down - spot_y) ** 2
        level = level * (np.float32(0.72) + np.float32(0.5) * np.exp(-reach * squared_distance))
    corners = np.float32(rng.uniform(0, 0.25)) * (across**2 + down**2)
    level = (level - corners) * np.float32((0.66 if lighting == "dim" else 1.0) * np.exp(rng.normal(0, 0.05)))
    return Lamp(lighting, direction, level)


def expose(tone: Field, surface: str, colour: str, lamp: Lamp, rng: np.random.Generator) -> Field:
    """Render a surface as (H, W, 3) in 8..247, before rounding.

    Glossy highlights lose colour, bright values are compressed, and a soft sensor grain is added.
    """
    exposed = lamp.level * (1 + tone)
    paint = np.array(COLOURS[colour]) * np.exp(rng.normal(0, 0.02, 3))
    glare = np.maximum(exposed - np.float32(1.08), 0) * np.float32(150 * _GLOSS.get(surface, 0.0))
    glare += np.float32(1.0) * smooth(tone.shape, rng, 0.7)
    image = exposed[:, :, None] * paint.astype(np.float32) + glare[:, :, None]
    image -= np.float32(0.45) * np.maximum(image - 195, 0)
    return np.clip(image, 8, 247)
