import numpy as np
import pytest
from pydantic import ValidationError

from inandout.classifier.label_losses import label_losses
from inandout.data.config import DataConfig
from inandout.data.manifest import Sample
from inandout.data.prepare import CheckedData
from inandout.data.splits import assign_folds
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


def test_the_folds_of_a_dataset_test_every_image_once_and_ignore_its_split() -> None:
    samples = [
        Sample(image=f"/{i}.png", label=int(label), group=group, split="test" if i < 3 else "train")
        for i, (label, group) in enumerate(zip(LABELS, GROUPS, strict=True))
    ]
    tested: list[int] = []
    for number in (1, 2, 3):
        fold = CheckedData(samples).split(DataConfig(fold=f"{number}/3"), seed=number)
        assert [sample.image for sample in fold] == [sample.image for sample in samples]
        tested += [i for i, sample in enumerate(fold) if sample.split == "test"]
        by_split = {split: {s.group for s in fold if s.split == split} for split in ("train", "val", "test")}
        assert by_split["val"]
        assert not by_split["test"] & (by_split["train"] | by_split["val"])
    assert sorted(tested) == list(range(42))


@pytest.mark.parametrize("fold", ["0/3", "4/3", "1/1", "2", "a/b", "1/51", "/3"])
def test_an_invalid_fold_is_refused(fold: str) -> None:
    with pytest.raises(ValidationError, match="must be K/N"):
        DataConfig(fold=fold)
