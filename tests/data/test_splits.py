from pathlib import Path

import pytest

from inandout.data.config import Shot
from inandout.data.manifest import Sample, Split
from inandout.data.splits import cut_validation, split_test, take_shot
from inandout.errors import InputError


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
        taken = take_shot(samples, shot, 5, 0)  # type: ignore[arg-type]
        count = {split: sum(s.label for s in taken if s.split == split) for split in ("train", "val", "test")}
        assert count == {"train": in_train, "val": in_val, "test": 4}
        assert [s for s in taken if s.label == 0] == [s for s in samples if s.label == 0]


def test_few_shots_depend_on_the_seed() -> None:
    samples = make(30, 1, 20, "train")
    assert take_shot(samples, "few", 5, 3) == take_shot(samples, "few", 5, 3)
    assert take_shot(samples, "few", 5, 3) != take_shot(samples, "few", 5, 4)


def test_more_shots_than_positives_raise_an_error() -> None:
    with pytest.raises(InputError, match="n_shot is 9, but the training split has 8 positives"):
        take_shot(make(20, 1, 8, "train"), "few", 9, 0)


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
        take_shot(samples, shot, 5, 0)
    assert take_shot(samples, "zero", 5, 0) == samples
