import numpy as np
import pytest

from inandout.classifier.folds import assign_folds, label_losses
from inandout.errors import InputError

LABELS = np.array([0] * 30 + [1] * 12)
GROUPS = [f"part {number // 2}" for number in range(42)]


def test_folds_partition_the_images_by_whole_groups() -> None:
    folds = assign_folds(LABELS, GROUPS, 3, seed=0)
    assert sorted(np.concatenate(folds)) == list(range(42))
    parts = [{GROUPS[i] for i in fold} for fold in folds]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert all(set(LABELS[fold]) == {0, 1} for fold in folds)


def test_folds_depend_on_the_seed_only() -> None:
    first, again, other = (assign_folds(LABELS, GROUPS, 3, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_too_few_groups_of_a_label_raise_an_error() -> None:
    with pytest.raises(InputError, match="folds = 7, but only 6 parts are labelled defect"):
        assign_folds(LABELS, GROUPS, 7, seed=0)


def test_the_loss_is_the_cross_entropy_and_stays_finite() -> None:
    logits = np.array([0.0, 2.0, 2.0, -1e4, 1e4])
    labels = np.array([0, 1, 0, 1, 1])
    expected = [np.log(2), np.log1p(np.exp(-2)), np.log1p(np.exp(2)), 1e4, 0.0]
    assert label_losses(logits, labels) == pytest.approx(expected)
