"""Training presets per scenario: the paper's for Stable Diffusion, and others for the embedded base."""

from typing import NamedTuple

from inandout.data.config import Shot
from inandout.diffusion.base.config import Kind


class Preset(NamedTuple):
    """How an adapter is trained in one scenario."""

    epochs: int
    lr: float
    n_prior: int
    """Number of images of the class prompt for prior preservation."""


N_NEGATIVES = 50
"""Number of good images for zero-shot fine-tuning (paper, section 5.2)."""

_PAPER: dict[Shot, int] = {"zero": 5, "few": 49, "full": 25}
"""Epochs of the paper; at zero and few shot, 415 and 441 steps."""
_LR: dict[Kind, float] = {"sd": 1e-5, "sd2": 1e-5, "sdxl": 1e-4}
"""Learning rates: the paper's for Stable Diffusion 1, also used for 2, which has the same layers; for SDXL the one of
diffusers' example `train_dreambooth_lora_sdxl.py`, which trains for 500 steps at 1024 x 1024."""

PRESETS: dict[tuple[Kind, Shot], Preset] = {
    **{(kind, shot): Preset(epochs, lr, 200) for kind, lr in _LR.items() for shot, epochs in _PAPER.items()},
    ("embedded", "zero"): Preset(4, 2e-3, 48),
    ("embedded", "few"): Preset(40, 1e-3, 48),
    ("embedded", "full"): Preset(1, 1e-3, 48),
}
"""Those of Stable Diffusion 2 and XL have not been run. The presets of the embedded base take minutes on a CPU core, at
the learning rate of a much smaller model. Few shot: images are blurred after 10 epochs and not after 40. Full shot: the
only value tried."""
