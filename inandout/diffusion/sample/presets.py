"""Presets of drawing per scenario: the paper's with plain guidance, and ours with composed guidance."""

from typing import NamedTuple, get_args

from inandout.data.config import KINDS, Shot
from inandout.diffusion.base.config import Kind
from inandout.diffusion.sample.config import GuidanceMode


class Strength(NamedTuple):
    """How strongly the adapter and the prompt act."""

    alpha: float
    """Merging weight of the adapter; see `merge`."""
    guidance: float
    """Guidance scale."""


class DrawingPreset(NamedTuple):
    """How images are drawn in one scenario."""

    whole: Strength
    """Of whole images."""
    inpaint: Strength
    """Of inpainting, where the product's own background is kept."""
    defects: tuple[str, ...]
    """Defect words that are appended to the instance prompt; an empty word if defects were in the training images."""


DEFAULT_MODES: dict[Kind, GuidanceMode] = {"embedded": "composed", "sd": "plain"}

_PAPER_WORDS = ("cracked", "scratched")
_NO_WORDS = ("",)
_COMPOSED: dict[Kind, DrawingPreset] = {
    "sd": DrawingPreset(Strength(1.0, 7.5), Strength(1.0, 7.5), _PAPER_WORDS),
    "embedded": DrawingPreset(Strength(1.0, 1.5), Strength(1.0, 2.0), KINDS),
}

DRAWING_PRESETS: dict[tuple[Kind, Shot, GuidanceMode], DrawingPreset] = {
    ("sd", "zero", "plain"): DrawingPreset(Strength(0.60, 7.5), Strength(0.60, 7.5), _PAPER_WORDS),
    ("sd", "few", "plain"): DrawingPreset(Strength(0.95, 7.5), Strength(0.95, 7.5), _NO_WORDS),
    ("sd", "full", "plain"): DrawingPreset(Strength(0.80, 7.5), Strength(0.80, 7.5), _NO_WORDS),
    ("embedded", "zero", "plain"): DrawingPreset(Strength(0.60, 3.0), Strength(0.30, 3.0), _PAPER_WORDS),
    ("embedded", "few", "plain"): DrawingPreset(Strength(0.80, 3.0), Strength(0.80, 3.0), _NO_WORDS),
    ("embedded", "full", "plain"): DrawingPreset(Strength(0.80, 3.0), Strength(0.80, 3.0), _NO_WORDS),
    **{(kind, shot, "composed"): preset for kind, preset in _COMPOSED.items() for shot in get_args(Shot)},
}
"""Plain guidance of Stable Diffusion: the paper's values. Plain guidance of the embedded base was chosen on magnetic
tiles, composed guidance on three products at zero shot (experiments/composed_guidance.md). Composed guidance with few
and full shot, and with Stable Diffusion, is not measured."""


def drawing_preset(kind: Kind, shot: Shot, mode: GuidanceMode | None) -> tuple[GuidanceMode, DrawingPreset]:
    """Return the guidance mode, the default of the base if None, and the preset for it."""
    mode = mode or DEFAULT_MODES[kind]
    return mode, DRAWING_PRESETS[kind, shot, mode]
