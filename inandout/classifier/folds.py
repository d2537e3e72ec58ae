"""Cross-validation folds and per-image losses, for finding label errors."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from inandout.classifier.training import Labels, Logits
from inandout.errors import InputError


def assign_folds(labels: Labels, groups: Sequence[str], folds: int, seed: int) -> list[npt.NDArray[np.intp]]:
    """Assign images to stratified folds by whole groups.

    Args:
        labels: (N,) of 0 and 1.
        groups: N names; images of one physical part share a name.
        folds: 2 or more.
        seed: seed of the random assignment.

    Returns:
        Indices of the images of each fold; each image is in one fold.

    Raises:
        InputError: a label has fewer groups than `folds`.
    """
    for label, name in ((0, "good"), (1, "defect")):
        count = len({group for group, image_label in zip(groups, labels, strict=True) if image_label == label})
        if count < folds:
            raise InputError(
                f"folds = {folds}, but only {count} parts are labelled {name}; lower folds (minimum 2) or add images"
            )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [held_out for _, held_out in splitter.split(np.zeros(len(labels)), labels, groups)]


def label_losses(logits: Logits, labels: Labels) -> npt.NDArray[np.float64]:
    """Return the cross-entropy (N,) in nats of defect logits (N,) and labels 0 or 1; above ln 2 they disagree."""
    return np.logaddexp(0, np.where(labels == 1, -logits, logits))
