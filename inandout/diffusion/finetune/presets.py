"""Training and merging presets per scenario: the paper's for Stable Diffusion, and others for the embedded base."""

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
    """Merging weight for inpainting, where the product's own background is kept."""
    n_prior: int
    """Number of images of the class prompt for prior preservation."""
    defects: tuple[str, ...]
    """Defect words that are appended to the instance prompt; an empty word if defects were in the training images."""


N_NEGATIVES = 50
"""Number of good images for zero-shot fine-tuning (paper, section 5.2)."""

_DEFECT_WORDS = ("cracked", "scratched")
_NO_WORDS = ("",)

PRESETS: dict[tuple[Kind, Shot], Preset] = {
    ("sd", "zero"): Preset(5, 1e-5, 0.60, 0.60, 200, _DEFECT_WORDS),
    ("sd", "few"): Preset(49, 1e-5, 0.95, 0.95, 200, _NO_WORDS),
    ("sd", "full"): Preset(25, 1e-5, 0.80, 0.80, 200, _NO_WORDS),
    ("embedded", "zero"): Preset(4, 2e-3, 0.60, 0.30, 48, _DEFECT_WORDS),
    ("embedded", "few"): Preset(40, 1e-3, 0.80, 0.80, 48, _NO_WORDS),
    ("embedded", "full"): Preset(1, 1e-3, 0.80, 0.80, 48, _NO_WORDS),
}
"""The presets of the embedded base take minutes on a CPU core, at the learning rate of a much smaller model. They were
chosen by inspecting images of magnetic tiles (experiments/tiles_diffusion.md). Zero shot: from alpha .5 on the
background is the product's, above .7 defects fade; when inpainting they fade above .3. Few shot: images are blurred
after 10 epochs; after 40 they look plain at alpha .6 and exaggerated at .95. Full shot: the only values tried."""
