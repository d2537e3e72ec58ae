import numpy as np
import pytest

from inandout.classifier.folds import assign_folds, label_losses
from inandout.errors import InputError

LABELS = np.array([0] * 30 + [1] * 12)
GROUPS = [f"part {number // 2}" for number in range(42)]


def test_every_image_is_in_one_fold_and_no_part_in_two() -> None:
    folds = assign_folds(LABELS, GROUPS, 3, seed=0)
    assert sorted(np.concatenate(folds)) == list(range(42))
    parts = [{GROUPS[i] for i in fold} for fold in folds]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert all(fold_has_both(fold) for fold in folds)


def fold_has_both(fold: np.ndarray) -> bool:
    return set(LABELS[fold]) == {0, 1}


def test_the_draw_hangs_on_the_seed_alone() -> None:
    first, again, other = (assign_folds(LABELS, GROUPS, 3, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_too_few_parts_of_a_label_is_a_sentence() -> None:
    with pytest.raises(InputError, match="folds = 7: there are 6 parts labelled defect"):
        assign_folds(LABELS, GROUPS, 7, seed=0)


def test_the_loss_is_the_cross_entropy_and_stays_finite() -> None:
    logits = np.array([0.0, 2.0, 2.0, -1e4, 1e4])
    labels = np.array([0, 1, 0, 1, 1])
    expected = [np.log(2), np.log1p(np.exp(-2)), np.log1p(np.exp(2)), 1e4, 0.0]
    assert label_losses(logits, labels) == pytest.approx(expected)
