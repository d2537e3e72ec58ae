"""What changes from scenario to scenario: the paper's values for Stable Diffusion, others for our own base."""

from typing import NamedTuple

from inandout.data.splits import Shot
from inandout.diffusion.base import Kind


class Profile(NamedTuple):
    """How an adapter is trained and merged in one scenario."""

    epochs: int
    lr: float
    alpha: float
    """Merging weight; see `merge`."""
    n_prior: int
    """Pictures of the class prompt for prior preservation."""
    defects: tuple[str, ...]
    """Words that, after the instance prompt, draw defects: none where those were learned."""


NEGATIVES = 50
"""Pictures without a defect that zero shot fine-tunes on (paper, section 5.2)."""

_ASKED = ("cracked", "scratched")
_LEARNED = ("",)

PROFILES: dict[tuple[Kind, Shot], Profile] = {
    ("sd", "zero"): Profile(5, 1e-5, 0.60, 200, _ASKED),
    ("sd", "few"): Profile(49, 1e-5, 0.95, 200, _LEARNED),
    ("sd", "full"): Profile(25, 1e-5, 0.80, 200, _LEARNED),
    ("embedded", "zero"): Profile(4, 2e-3, 0.30, 48, _ASKED),
    ("embedded", "few"): Profile(10, 1e-3, 0.95, 48, _LEARNED),
    ("embedded", "full"): Profile(1, 1e-3, 0.80, 48, _LEARNED),
}
"""The embedded base's own take minutes on a core, at the learning rate of a far smaller model. Zero shot was chosen by
looking at magnetic tiles (experiments/tiles_diffusion.md): after one epoch at .001 the pictures kept the base's colours
at any alpha; after four at .002 they are the product's from about .3 on, and from .6 on hardly show a defect."""
