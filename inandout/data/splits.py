"""Group-wise train, validation and test splits, and the paper's zero, few and full shot."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from inandout.data.config import ShotConfig
from inandout.data.manifest import Sample, Split
from inandout.errors import InputError


def split_test(samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Divide a manifest without a split into a training and a test split by whole groups.

    Args:
        samples: rows with an empty `split`; a manifest with a split is returned unchanged.
        share: share of the images of each label in the test split, 0..1, approximated by whole groups.
        seed: seed of the random choice of groups.

    Raises:
        InputError: some rows have a split and others have none.
    """
    without = sum(sample.split == "" for sample in samples)
    if without == 0:
        return list(samples)
    if without < len(samples):
        raise InputError(f"{without} of {len(samples)} rows have no split; set the split of all rows or of none")
    training = [sample.with_(split="train") for sample in samples]
    return _move(training, "train", "test", share, seed)


def take_fold(samples: Sequence[Sample], number: int, folds: int) -> list[Sample]:
    """Divide all images anew: fold `number` of `folds`, counted from 1, is the test split, the rest the training split.

    The folds depend on no seed, so that all runs share them. Their rows together test every image once.

    Args:
        samples: all rows; their splits are ignored.
        number: 1..`folds`.
        folds: 2 or more.

    Raises:
        InputError: a label has fewer groups than `folds`.
    """
    labels = np.array([sample.label for sample in samples], np.int64)
    test = set(assign_folds(labels, _group_names(samples), folds, 0)[number - 1].tolist())
    return [sample.with_(split="test" if i in test else "train") for i, sample in enumerate(samples)]


def assign_folds(
    labels: npt.NDArray[np.int64], groups: Sequence[str], folds: int, seed: int
) -> list[npt.NDArray[np.intp]]:
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


def cut_validation(samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Move about `share` of the training images of each label to the validation split, by whole groups.

    A manifest with a validation split is returned unchanged.
    """
    if any(sample.split == "val" for sample in samples):
        return list(samples)
    return _move(samples, "train", "val", share, seed)


def take_shot(samples: Sequence[Sample], scenario: ShotConfig, seed: int) -> list[Sample]:
    """Keep only the real positives of the scenario (paper, section 4).

    `full` keeps all, `few` keeps `n_shot` random ones of the training split, `zero` keeps none. `few` and `zero` also
    remove all positives from the validation split, since a factory with few or no positives cannot validate on them.
    The test split is unchanged. With `each_kind`, `few` keeps `n_shot` of each kind of defect of the training and
    validation splits, and no positive without a kind.

    Raises:
        InputError: with `full` or `few`, the training split has no positives or, with `few`, fewer than `n_shot`, in
            all or of a kind; with `each_kind`, no positive has a kind.
    """
    shot = scenario.shot
    positives = [i for i, sample in enumerate(samples) if sample.label == 1 and sample.split == "train"]
    if shot != "zero" and not positives:
        raise InputError(f"shot is {shot}, but the training split has no positives; use shot=zero")
    if shot == "full":
        return list(samples)
    kept = _draw_few(samples, positives, scenario, seed) if shot == "few" else set()
    return [sample for i, sample in enumerate(samples) if sample.label == 0 or sample.split == "test" or i in kept]


def _draw_few(samples: Sequence[Sample], positives: Sequence[int], scenario: ShotConfig, seed: int) -> set[int]:
    """Draw `n_shot` of the indices `positives`, in all or of each kind of defect."""
    by_kind = _by_kind(samples, positives) if scenario.each_kind else {"": positives}
    kind = min(by_kind, key=lambda name: len(by_kind[name]))
    if scenario.n_shot > len(by_kind[kind]):
        of_kind = f" of the kind {kind!r}" if kind else ""
        fix = "add images of this kind, use another seed, or each_kind=false" if kind else "use shot=full"
        lower = "lower n_shot, or " if by_kind[kind] else ""
        raise InputError(
            f"n_shot is {scenario.n_shot}, but the training split has {len(by_kind[kind])} positives{of_kind}; "
            f"{lower}{fix}"
        )
    rng = np.random.default_rng(seed)
    return {int(i) for indices in by_kind.values() for i in rng.permutation(indices)[: scenario.n_shot]}


def _by_kind(samples: Sequence[Sample], positives: Sequence[int]) -> dict[str, list[int]]:
    """Return the indices `positives` of each kind of defect that the training and validation splits name."""
    kinds = sorted({sample.defect for sample in samples if sample.label == 1 and sample.split != "test"} - {""})
    if not kinds:
        raise InputError(
            "each_kind is true, but the column 'defect' is empty for all training positives; give their kinds, or use "
            "each_kind=false"
        )
    return {kind: [i for i in positives if samples[i].defect == kind] for kind in kinds}


def _move(samples: Sequence[Sample], source: Split, target: Split, share: float, seed: int) -> list[Sample]:
    """Move whole groups from split `source` to split `target`."""
    names = _group_names(samples)
    chosen = _draw_groups([(names[i], s.label) for i, s in enumerate(samples) if s.split == source], share, seed)
    return [
        sample.with_(split=target) if sample.split == source and names[i] in chosen else sample
        for i, sample in enumerate(samples)
    ]


def _group_names(samples: Sequence[Sample]) -> list[str]:
    """Return a group name per sample; samples without a group get a unique name that no manifest group can have."""
    return [f"={sample.group}" if sample.group else f"#{i}" for i, sample in enumerate(samples)]


def _draw_groups(images: Sequence[tuple[str, int]], share: float, seed: int) -> set[str]:
    """Draw groups with about `share` of the images of each label, leaving at least one group of each label.

    A group with both labels counts for both.
    """
    rng = np.random.default_rng(seed)
    by_label = [Counter(name for name, image_label in images if image_label == label) for label in (0, 1)]
    remaining = [set(sizes) for sizes in by_label]
    chosen: set[str] = set()
    for sizes in by_label:
        names = sorted(sizes)
        wanted = share * sizes.total()
        taken = sum(sizes[name] for name in names if name in chosen)
        for name in (names[i] for i in rng.permutation(len(names))):
            fits = name not in chosen and taken + sizes[name] / 2 <= wanted
            if fits and all(groups != {name} for groups in remaining):
                chosen.add(name)
                taken += sizes[name]
                for groups in remaining:
                    groups.discard(name)
    return chosen
