"""Presets of drawing per scenario: the paper's with plain guidance, and ours with composed guidance."""

from typing import NamedTuple

from inandout.data.splits import Shot
from inandout.data.surfaces import KINDS
from inandout.diffusion.base.base import Kind
from inandout.diffusion.sample.guidance import GuidanceMode


class DrawingPreset(NamedTuple):
    """How images are drawn in one scenario."""

    alpha: float
    """Merging weight for whole images; see `merge`."""
    inpaint_alpha: float
    """Merging weight for inpainting, where the product's own background is kept."""
    guidance: float
    """Guidance scale."""
    defects: tuple[str, ...]
    """Defect words that are appended to the instance prompt; an empty word if defects were in the training images."""


DEFAULT_MODES: dict[Kind, GuidanceMode] = {"embedded": "composed", "sd": "plain"}

_PAPER_WORDS = ("cracked", "scratched")
_NO_WORDS = ("",)

DRAWING_PRESETS: dict[tuple[Kind, Shot, GuidanceMode], DrawingPreset] = {
    ("sd", "zero", "plain"): DrawingPreset(0.60, 0.60, 7.5, _PAPER_WORDS),
    ("sd", "few", "plain"): DrawingPreset(0.95, 0.95, 7.5, _NO_WORDS),
    ("sd", "full", "plain"): DrawingPreset(0.80, 0.80, 7.5, _NO_WORDS),
    ("sd", "zero", "composed"): DrawingPreset(1.0, 1.0, 7.5, _PAPER_WORDS),
    ("sd", "few", "composed"): DrawingPreset(1.0, 1.0, 7.5, _PAPER_WORDS),
    ("sd", "full", "composed"): DrawingPreset(1.0, 1.0, 7.5, _PAPER_WORDS),
    ("embedded", "zero", "plain"): DrawingPreset(0.60, 0.30, 3.0, _PAPER_WORDS),
    ("embedded", "few", "plain"): DrawingPreset(0.80, 0.80, 3.0, _NO_WORDS),
    ("embedded", "full", "plain"): DrawingPreset(0.80, 0.80, 3.0, _NO_WORDS),
    ("embedded", "zero", "composed"): DrawingPreset(1.0, 1.0, 1.5, KINDS),
    ("embedded", "few", "composed"): DrawingPreset(1.0, 1.0, 1.5, KINDS),
    ("embedded", "full", "composed"): DrawingPreset(1.0, 1.0, 1.5, KINDS),
}
"""Stable Diffusion with plain guidance: the paper's values. With composed guidance: not measured. The embedded base was
tuned on magnetic tiles with plain guidance, and on several products with composed guidance
(experiments/composed_guidance.md)."""


def drawing_preset(kind: Kind, shot: Shot, mode: GuidanceMode | None) -> tuple[GuidanceMode, DrawingPreset]:
    """Return the guidance mode, the default of the base if None, and the preset for it."""
    mode = mode or DEFAULT_MODES[kind]
    return mode, DRAWING_PRESETS[kind, shot, mode]
