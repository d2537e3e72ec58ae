"""Which synthetic defects look like defects to a trained classifier: told from distances in its features.

Every threshold comes from real good parts that the classifier has not seen, those of the validation part, and says how
many more of their kind would pass it: a conformal quantile (Vovk 2005), which holds on average for any number of them.
No synthetic image and no test image has a say.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

from inandout.errors import InputError
from inandout.evaluation.distances import Features, nearest
from inandout.evaluation.metrics import Floats

FilterResult = Literal["kept", "good", "unlike"]
"""kept, or why it is rejected: good = as near to good parts as a good part is; unlike = no nearer to real defects than
a good part is."""


class Thresholds(NamedTuple):
    """What an image is measured by."""

    negatives: float
    """Distance to training negatives that it must exceed."""
    positives: float | None
    """Distance to training positives that it must fall below; None where no real defects are known."""


class RealFeatures(NamedTuple):
    """Features of real images (N, D)."""

    negatives: Features
    """Of the training part."""
    positives: Features
    """Of the training part, as many as the shot has; maybe none."""
    unseen: Features
    """Negatives of the validation part."""


def fit_thresholds(real: RealFeatures, quantile: float) -> Thresholds:
    """Limits that a new good part fails to pass with a probability of `quantile`, 0..1, or more; each on its own.

    Raises:
        InputError: there are too few unseen good parts to say so; the message has the number that is needed.
    """
    count = len(real.unseen)
    rank = math.ceil((count + 1) * quantile - 1e-9)
    if rank > count:
        needed = math.ceil(quantile / (1 - quantile) - 1e-9)
        raise InputError(
            f"quantile = {quantile:g}: the validation part has {count} negatives, and {needed} are needed to say so; "
            "raise val_share, or give a lower quantile"
        )
    to_negatives = np.sort(nearest(real.unseen, real.negatives))
    if not len(real.positives):
        return Thresholds(float(to_negatives[rank - 1]), None)
    return Thresholds(float(to_negatives[rank - 1]), float(np.sort(nearest(real.unseen, real.positives))[-rank]))


def apply_thresholds(to_negatives: Floats, to_positives: Floats | None, thresholds: Thresholds) -> list[FilterResult]:
    """What becomes of images with these distances (N,) to the nearest training negative and positive."""
    near_good = to_negatives <= thresholds.negatives
    far = np.zeros(len(near_good), bool)
    if to_positives is not None and thresholds.positives is not None:
        far = to_positives >= thresholds.positives
    return ["good" if good else "unlike" if unlike else "kept" for good, unlike in zip(near_good, far, strict=True)]
