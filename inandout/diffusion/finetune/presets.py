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

PRESETS: dict[tuple[Kind, Shot], Preset] = {
    ("sd", "zero"): Preset(5, 1e-5, 200),
    ("sd", "few"): Preset(49, 1e-5, 200),
    ("sd", "full"): Preset(25, 1e-5, 200),
    ("embedded", "zero"): Preset(4, 2e-3, 48),
    ("embedded", "few"): Preset(40, 1e-3, 48),
    ("embedded", "full"): Preset(1, 1e-3, 48),
}
"""The presets of the embedded base take minutes on a CPU core, at the learning rate of a much smaller model. Few shot:
images are blurred after 10 epochs and not after 40. Full shot: the only value tried."""
