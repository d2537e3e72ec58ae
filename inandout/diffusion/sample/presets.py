"""Presets of drawing per scenario: the paper's with plain guidance, and ours with composed guidance."""

from typing import NamedTuple, get_args

from inandout.data.config import KINDS, Shot
from inandout.diffusion.base.config import Kind
from inandout.diffusion.sample.config import GuidanceMode, SamplingConfig


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


DEFAULT_MODES: dict[Kind, GuidanceMode] = {"embedded": "composed", "sd": "plain", "sd2": "plain", "sdxl": "plain"}
_GUIDANCE: dict[Kind, float] = {"sd": 7.5, "sd2": 7.5, "sdxl": 5.0}
"""Guidance of Stable Diffusion: the paper's, and for SDXL the default of diffusers' pipeline."""
_ALPHAS: dict[Shot, float] = {"zero": 0.60, "few": 0.95, "full": 0.80}
"""Merging weights of the paper."""


def _everywhere(alpha: float, guidance: float, defects: tuple[str, ...]) -> DrawingPreset:
    """Return a preset with the same strength for whole images and inpainting."""
    return DrawingPreset(Strength(alpha, guidance), Strength(alpha, guidance), defects)


_PAPER_WORDS = ("cracked", "scratched")
_NO_WORDS = ("",)
_COMPOSED: dict[Kind, DrawingPreset] = {
    "embedded": DrawingPreset(Strength(1.0, 1.5), Strength(1.0, 2.0), KINDS),
    **{kind: _everywhere(1.0, guidance, _PAPER_WORDS) for kind, guidance in _GUIDANCE.items()},
}

DRAWING_PRESETS: dict[tuple[Kind, Shot, GuidanceMode], DrawingPreset] = {
    **{
        (kind, shot, "plain"): _everywhere(alpha, guidance, _PAPER_WORDS if shot == "zero" else _NO_WORDS)
        for kind, guidance in _GUIDANCE.items()
        for shot, alpha in _ALPHAS.items()
    },
    ("embedded", "zero", "plain"): DrawingPreset(Strength(0.60, 3.0), Strength(0.30, 3.0), _PAPER_WORDS),
    ("embedded", "few", "plain"): DrawingPreset(Strength(0.80, 3.0), Strength(0.80, 3.0), _NO_WORDS),
    ("embedded", "full", "plain"): DrawingPreset(Strength(0.80, 3.0), Strength(0.80, 3.0), _NO_WORDS),
    **{(kind, shot, "composed"): preset for kind, preset in _COMPOSED.items() for shot in get_args(Shot)},
}
"""Plain guidance of Stable Diffusion: the paper's values for version 1; for 2 and XL they are not measured. Plain
guidance of the embedded base was chosen on magnetic tiles. Composed guidance was chosen on three products at zero shot
and checked on others, also with real defects (experiments/composed_guidance.md); with Stable Diffusion it is not
measured."""


def drawing_preset(kind: Kind, shot: Shot, mode: GuidanceMode | None) -> tuple[GuidanceMode, DrawingPreset]:
    """Return the guidance mode, the default of the base if None, and the preset for it."""
    mode = mode or DEFAULT_MODES[kind]
    return mode, DRAWING_PRESETS[kind, shot, mode]


DIAG_PROMPTS = ("white marks on the wall", "copper metal scratches")
DIAG_SAMPLING = SamplingConfig(
    guidance=20.0, steps=30, strength=0.99, mask_crop=2, negative_prompt="smooth, plain, black, dark, shadow",
    sample_batch=1,
)  # fmt: skip
DIAG_SIDE = 1024
"""Published settings of DIAG (Girella 2024), from `generate_augmented_images.py` of its authors: prompts, sampling with
SDXL inpainting, and side in px of the square to which images are stretched. Its solver is the base's Euler; here it is
DDIM or DPM-Solver++."""
