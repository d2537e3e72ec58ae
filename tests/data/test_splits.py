from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from inandout.data.config import Shot, ShotConfig
from inandout.data.manifest import Sample, Split
from inandout.data.splits import cut_validation, split_test, take_shot
from inandout.errors import InputError

FEW = ShotConfig(shot="few", n_shot=5)


def make(groups: int, per_group: int, positives: int, split: Split = "") -> list[Sample]:
    """Make samples whose first `positives` groups are defective."""
    return [
        Sample(image=Path(f"/{g}-{i}.png"), label=int(g < positives), group=f"part {g}", split=split)
        for g in range(groups)
        for i in range(per_group)
    ]


def groups_of(samples: list[Sample], split: str) -> set[str]:
    return {sample.group for sample in samples if sample.split == split}


@pytest.mark.parametrize("seed", range(20))
def test_splits_share_no_group_and_contain_both_labels(seed: int) -> None:
    samples = cut_validation(split_test(make(40, 6, 10), 0.35, seed), 0.2, seed)
    parts = [groups_of(samples, split) for split in ("train", "val", "test")]
    assert sum(len(part) for part in parts) == 40
    assert set.union(*parts) == {f"part {g}" for g in range(40)}
    for split in ("train", "val", "test"):
        assert {sample.label for sample in samples if sample.split == split} == {0, 1}


def test_shares_are_met_for_each_label() -> None:
    samples = split_test(make(200, 3, 50), 0.35, 0)
    for label in (0, 1):
        splits = [sample.split for sample in samples if sample.label == label]
        assert splits.count("test") / len(splits) == pytest.approx(0.35, abs=0.02)


def test_splits_depend_on_the_seed() -> None:
    samples = make(40, 2, 10, "train")
    assert cut_validation(samples, 0.2, 1) == cut_validation(samples, 0.2, 1)
    assert groups_of(cut_validation(samples, 0.2, 1), "val") != groups_of(cut_validation(samples, 0.2, 2), "val")


def test_an_existing_split_is_kept() -> None:
    samples = make(4, 2, 2, "train") + make(4, 2, 2, "test")
    assert split_test(samples, 0.35, 0) == samples
    with_val = samples + make(4, 2, 2, "val")
    assert cut_validation(with_val, 0.2, 0) == with_val


def test_a_partial_split_raises_an_error() -> None:
    with pytest.raises(InputError, match="8 of 16 rows have no split"):
        split_test(make(4, 2, 2, "train") + make(4, 2, 2), 0.35, 0)


def test_the_last_group_of_a_label_stays_in_training() -> None:
    samples = cut_validation(make(2, 5, 1, "train"), 0.5, 0)
    assert groups_of(samples, "train") == {"part 0", "part 1"}


def test_a_share_of_zero_moves_nothing() -> None:
    samples = make(10, 2, 5, "train")
    assert cut_validation(samples, 0.0, 0) == samples


def test_shots_limit_positives_and_keep_the_test_split() -> None:
    samples = [*make(20, 1, 8, "train"), *make(6, 1, 3, "val"), *make(10, 1, 4, "test")]
    for shot, in_train, in_val in (("zero", 0, 0), ("few", 5, 0), ("full", 8, 3)):
        taken = take_shot(samples, ShotConfig(shot=shot), 0)
        count = {split: sum(s.label for s in taken if s.split == split) for split in ("train", "val", "test")}
        assert count == {"train": in_train, "val": in_val, "test": 4}
        assert [s for s in taken if s.label == 0] == [s for s in samples if s.label == 0]


def test_few_shots_depend_on_the_seed() -> None:
    samples = make(30, 1, 20, "train")
    assert take_shot(samples, FEW, 3) == take_shot(samples, FEW, 3)
    assert take_shot(samples, FEW, 3) != take_shot(samples, FEW, 4)


def test_the_choice_of_few_shots_is_that_of_earlier_versions() -> None:
    positives = [i for i, sample in enumerate(make(30, 1, 20, "train")) if sample.label]
    expected = np.random.default_rng(3).permutation(positives)[:5]
    taken = take_shot(make(30, 1, 20, "train"), FEW, 3)
    assert {sample.group for sample in taken if sample.label} == {f"part {i}" for i in expected}


def of_kinds(split: Split, **counts: int) -> list[Sample]:
    """Make four good samples and `counts` defective ones of each kind; "none" has no kind."""
    good = [Sample(image=Path(f"/{split}{i}.png"), label=0, split=split) for i in range(4)]
    return good + [
        Sample(image=Path(f"/{split} {kind}{i}.png"), label=1, split=split, defect="" if kind == "none" else kind)
        for kind, count in counts.items()
        for i in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_few_of_each_kind_keeps_n_shot_of_each(seed: int) -> None:
    samples = [*of_kinds("train", crack=9, none=4, dent=3), *of_kinds("val", dent=2), *of_kinds("test", burr=2)]
    each = ShotConfig(shot="few", n_shot=2, each_kind=True)
    taken = take_shot(samples, each, seed)
    assert Counter((s.split, s.defect) for s in taken if s.label) == {
        ("train", "crack"): 2, ("train", "dent"): 2, ("test", "burr"): 2,
    }  # fmt: skip
    assert [s for s in taken if s.label == 0] == [s for s in samples if s.label == 0]
    assert taken == take_shot(samples, each, seed)
    for shot in ("zero", "full"):
        plain = ShotConfig(shot=shot, n_shot=2)
        assert take_shot(samples, plain.model_copy(update={"each_kind": True}), 0) == take_shot(samples, plain, 0)


def test_few_of_each_kind_depends_on_the_seed() -> None:
    samples, each = of_kinds("train", crack=20, dent=20), ShotConfig(shot="few", each_kind=True)
    assert take_shot(samples, each, 0) != take_shot(samples, each, 1)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (of_kinds("train", crack=9, dent=4), "n_shot is 5, .* 4 positives of the kind 'dent'; lower n_shot, or add"),
        (of_kinds("train", crack=9) + of_kinds("val", dent=9), "has 0 positives of the kind 'dent'"),
        (of_kinds("train", none=9) + of_kinds("test", dent=9), "the column 'defect' is empty for all training"),
    ],
)
def test_kinds_with_too_few_positives_raise_an_error(samples: list[Sample], message: str) -> None:
    with pytest.raises(InputError, match=message):
        take_shot(samples, ShotConfig(shot="few", n_shot=5, each_kind=True), 0)


def test_more_shots_than_positives_raise_an_error() -> None:
    with pytest.raises(InputError, match="n_shot is 9, but the training split has 8 positives"):
        take_shot(make(20, 1, 8, "train"), ShotConfig(shot="few", n_shot=9), 0)


@pytest.mark.parametrize("seed", range(20))
def test_groups_of_both_labels_leave_both_labels_in_training(seed: int) -> None:
    labels = {"A": (0, 1, 1), "B": (0,), "C": (0,), "D": (0,)}
    samples = [
        Sample(image=Path(f"/{group}{i}.png"), label=label, group=group, split="train")
        for group, group_labels in labels.items()
        for i, label in enumerate(group_labels)
    ]
    cut = cut_validation(samples, 0.2, seed)
    assert {sample.label for sample in cut if sample.split == "train"} == {0, 1}


def test_group_names_do_not_collide_with_ungrouped_images() -> None:
    named = [f"#{i}" for i in range(20, 40)]
    samples = [
        Sample(image=Path(f"/{i}.png"), label=0, group=group, split="train")
        for i, group in enumerate(named + [""] * 20)
    ]
    cut = cut_validation(samples, 0.5, 0)
    ungrouped = [sample.split for sample in cut if not sample.group]
    assert [sample.split for sample in cut if sample.group] != ungrouped
    assert sum(sample.split == "val" for sample in cut) == 20


@pytest.mark.parametrize("shot", ["few", "full"])
def test_a_training_split_without_positives_allows_zero_shot_only(shot: Shot) -> None:
    samples = [*make(8, 1, 0, "train"), *make(6, 1, 3, "test")]
    with pytest.raises(InputError, match="the training split has no positives; use shot=zero"):
        take_shot(samples, ShotConfig(shot=shot), 0)
    assert take_shot(samples, ShotConfig(shot="zero"), 0) == samples
