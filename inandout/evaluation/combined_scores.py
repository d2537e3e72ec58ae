"""Scores of two detectors together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from inandout.evaluation.metrics import Floats, Scored

FEWEST = 2
"""Minimum number of good validation images, for a standard deviation."""


class Detector(NamedTuple):
    """Scores of a detector on the validation and on the test part."""

    val: Scored
    test: Scored


def combine(detectors: Sequence[Detector]) -> Scored:
    """Return the sum of the standardised test scores of detectors of the same images.

    A score is standardised by the mean and the standard deviation of the good validation images, so that no defect and
    no test image is needed. A detector without spread on them counts as 0.

    Raises:
        ValueError: the test parts have other labels, or there are fewer than `FEWEST` good validation images.
    """
    first = detectors[0].test
    if any(not np.array_equal(first.labels, other.test.labels) for other in detectors):
        raise ValueError("the detectors were tested on images with other labels")
    logits: Floats = np.sum([_standardise(detector) for detector in detectors], axis=0)
    return first._replace(logits=logits)


def _standardise(detector: Detector) -> Floats:
    good = detector.val.logits[detector.val.labels == 0]
    if len(good) < FEWEST:
        raise ValueError(f"{len(good)} good validation images; {FEWEST} are needed")
    spread = float(good.std())
    return (detector.test.logits - good.mean()) / spread if spread > 0 else np.zeros(len(detector.test.logits))
