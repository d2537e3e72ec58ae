"""Every image judged by a classifier that has not seen it: what is needed to doubt labels."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from inandout.classifier.training import Labels, Logits
from inandout.errors import InputError


def assign_folds(labels: Labels, groups: Sequence[str], folds: int, seed: int) -> list[npt.NDArray[np.intp]]:
    """Part images into folds, whole groups at a time, with about as many of each label in every one.

    Args:
        labels: (N,) of 0 and 1.
        groups: N names; images of one physical part share one.
        folds: 2 or more.
        seed: of the draw.

    Returns:
        Indices of every fold; together they hold every image once.

    Raises:
        InputError: one label has fewer groups than there are folds, so that some fold would have to be judged without.
    """
    for label, name in ((0, "good"), (1, "defect")):
        there = len({group for group, its in zip(groups, labels, strict=True) if its == label})
        if there < folds:
            raise InputError(
                f"folds = {folds}: there are {there} parts labelled {name} to share out; lower folds (2 at least), or "
                "give more images"
            )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [judged for _, judged in splitter.split(np.zeros(len(labels)), labels, groups)]


def label_losses(logits: Logits, labels: Labels) -> npt.NDArray[np.float64]:
    """(N,) cross-entropy in nats of defect logits (N,) against labels of 0 and 1; above ln 2 the two disagree."""
    return np.logaddexp(0, np.where(labels == 1, -logits, logits))
