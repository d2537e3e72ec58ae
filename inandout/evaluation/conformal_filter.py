"""Filter synthetic defects by their distances to real images in the feature space of a trained classifier.

Each threshold is a conformal quantile (Vovk 2005) of the validation negatives, which the classifier was not trained on:
on average, a new good part fails it with at least the chosen probability, for any number of validation negatives.
Images of one part are not independent, so a part counts once, by its image that is closest to passing. Synthetic images
and test images do not affect the thresholds.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from inandout.errors import InputError
from inandout.evaluation.distances import Features, nearest
from inandout.evaluation.metrics import Floats, number_parts

FilterResult = Literal["kept", "good", "unlike"]
"""kept, or why it is rejected: good = as close to good parts as a good part; unlike = no closer to real defects than
a good part."""


class Thresholds(NamedTuple):
    """Distances that an image must exceed or stay below to be kept."""

    negatives: float
    """Lower limit of the distance to the nearest training negative."""
    positives: float | None
    """Upper limit of the distance to the nearest training positive; None without real defects."""


class RealFeatures(NamedTuple):
    """Features of real images (N, D)."""

    negatives: Features
    """Training negatives."""
    positives: Features
    """Training positives; may be empty."""
    unseen: Features
    """Validation negatives."""
    groups: Sequence[str] = ()
    """(N,) physical part of each image of `unseen`, as in `Scored`."""


def fit_thresholds(real: RealFeatures, quantile: float) -> Thresholds:
    """Return the limits that, each on its own, a new good part fails with a probability of at least `quantile`, 0..1.

    A part fails a limit if all its images do.

    Raises:
        InputError: the validation negatives show too few parts; the message names the required number.
    """
    part_of_image = number_parts(real.groups, len(real.unseen))
    count = len(np.unique(part_of_image))
    rank = math.ceil((count + 1) * quantile - 1e-9)
    if rank > count:
        needed = math.ceil(quantile / (1 - quantile) - 1e-9)
        raise InputError(
            f"quantile = {quantile:g}: needs at least {needed} good validation parts, but there are {count}; raise "
            "val_share or lower quantile"
        )
    farthest = np.zeros(count)
    np.maximum.at(farthest, part_of_image, nearest(real.unseen, real.negatives))
    limit = float(np.sort(farthest)[rank - 1])
    if not len(real.positives):
        return Thresholds(limit, None)
    closest = np.full(count, np.inf)
    np.minimum.at(closest, part_of_image, nearest(real.unseen, real.positives))
    return Thresholds(limit, float(np.sort(closest)[-rank]))


def apply_thresholds(to_negatives: Floats, to_positives: Floats | None, thresholds: Thresholds) -> list[FilterResult]:
    """Return the result for each of N images from its distances (N,) to the nearest training negative and positive."""
    near_good = to_negatives <= thresholds.negatives
    far = np.zeros(len(near_good), bool)
    if to_positives is not None and thresholds.positives is not None:
        far = to_positives >= thresholds.positives
    return ["good" if good else "unlike" if unlike else "kept" for good, unlike in zip(near_good, far, strict=True)]
