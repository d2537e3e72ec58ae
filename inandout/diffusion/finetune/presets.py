"""What changes from scenario to scenario: the paper's values for Stable Diffusion, others for our own base."""

from typing import NamedTuple

from inandout.data.splits import Shot
from inandout.diffusion.base.base import Kind


class Preset(NamedTuple):
    """How an adapter is trained and merged in one scenario."""

    epochs: int
    lr: float
    alpha: float
    """Merging weight; see `merge`."""
    inpaint_alpha: float
    """The same where only the inside of a mask is drawn: the ground is the product's already."""
    n_prior: int
    """Images of the class prompt for prior preservation."""
    defects: tuple[str, ...]
    """Words that, after the instance prompt, draw defects: none where those were learned."""


N_NEGATIVES = 50
"""Images without a defect that zero shot fine-tunes on (paper, section 5.2)."""

_ASKED = ("cracked", "scratched")
_LEARNED = ("",)

PRESETS: dict[tuple[Kind, Shot], Preset] = {
    ("sd", "zero"): Preset(5, 1e-5, 0.60, 0.60, 200, _ASKED),
    ("sd", "few"): Preset(49, 1e-5, 0.95, 0.95, 200, _LEARNED),
    ("sd", "full"): Preset(25, 1e-5, 0.80, 0.80, 200, _LEARNED),
    ("embedded", "zero"): Preset(4, 2e-3, 0.60, 0.30, 48, _ASKED),
    ("embedded", "few"): Preset(40, 1e-3, 0.80, 0.80, 48, _LEARNED),
    ("embedded", "full"): Preset(1, 1e-3, 0.80, 0.80, 48, _LEARNED),
}
"""The embedded base's own take minutes on a core, at the learning rate of a far smaller model. They were chosen by
looking at images of magnetic tiles (experiments/tiles_diffusion.md). Zero shot: from alpha .5 on the ground is the
product's, and beyond .7 the defects fade; inside a mask they fade from .3 on. Few shot: after 10 epochs the images
are blurred; after 40 they are plain at .6 and overdone at .95. Full shot: the one that was tried."""
