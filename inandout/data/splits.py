"""Training, validation and test parts that share no physical part, and the paper's zero / few / full shot."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from inandout.data.manifest import Sample, Split
from inandout.errors import InputError

Shot = Literal["zero", "few", "full"]


def split_test(samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Give a manifest without a split a training and a test part, whole groups at a time.

    Args:
        samples: rows whose `split` is empty everywhere; a manifest that brings its own split is returned as it is.
        share: share of the images of each label that go to the test part, 0..1, met as closely as groups allow.
        seed: the draw of groups is a function of it.

    Raises:
        InputError: some rows have a split and others have none.
    """
    without = sum(sample.split == "" for sample in samples)
    if without == 0:
        return list(samples)
    if without < len(samples):
        raise InputError(f"{without} of {len(samples)} rows have no split; give every row one, or none at all")
    everything = [sample.with_(split="train") for sample in samples]
    return _move(everything, "train", "test", share, seed)


def cut_validation(samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """Move whole groups from the training to the validation part, about `share` of the images of each label.

    A manifest that brings a validation part keeps it.
    """
    if any(sample.split == "val" for sample in samples):
        return list(samples)
    return _move(samples, "train", "val", share, seed)


def take_shot(samples: Sequence[Sample], shot: Shot, n_shot: int, seed: int) -> list[Sample]:
    """Leave as many real positives as the scenario has (paper, section 4).

    `full` keeps all; `few` keeps `n_shot` of the training part, drawn by seed; `zero` keeps none. Where a factory has
    few or no positives it has none to validate on either, so both take them out of the validation part too. The test
    part is never touched.

    Raises:
        InputError: `full` or `few`, and the training part has no positives or, for `few`, not that many.
    """
    positives = [i for i, sample in enumerate(samples) if sample.label == 1 and sample.split == "train"]
    if shot != "zero" and not positives:
        raise InputError(f"shot is {shot}, but the training part has no positives; use shot=zero")
    if shot == "full":
        return list(samples)
    wanted = n_shot if shot == "few" else 0
    if wanted > len(positives):
        raise InputError(
            f"n_shot is {wanted}, but the training part has {len(positives)} positives; "
            f"ask for 1 to {len(positives)}, or use shot=full"
        )
    kept = set(np.random.default_rng(seed).permutation(positives)[:wanted].tolist())
    return [sample for i, sample in enumerate(samples) if sample.label == 0 or sample.split == "test" or i in kept]


def _move(samples: Sequence[Sample], source: Split, target: Split, share: float, seed: int) -> list[Sample]:
    """Rows of `source`, whole groups at a time, to `target`."""
    names = _group_names(samples)
    chosen = _draw_groups([(names[i], s.label) for i, s in enumerate(samples) if s.split == source], share, seed)
    return [
        sample.with_(split=target) if sample.split == source and names[i] in chosen else sample
        for i, sample in enumerate(samples)
    ]


def _group_names(samples: Sequence[Sample]) -> list[str]:
    """An image without a group is a group of its own, whose name no group of a manifest can have."""
    return [f"={sample.group}" if sample.group else f"#{i}" for i, sample in enumerate(samples)]


def _draw_groups(images: Sequence[tuple[str, int]], share: float, seed: int) -> set[str]:
    """Groups that hold about `share` of the images of each label; of each label, one group at least stays behind.

    A group that holds both labels counts for both.
    """
    rng = np.random.default_rng(seed)
    by_label = [Counter(name for name, its_label in images if its_label == label) for label in (0, 1)]
    behind = [set(sizes) for sizes in by_label]
    chosen: set[str] = set()
    for sizes in by_label:
        names = sorted(sizes)
        wanted = share * sizes.total()
        taken = sum(sizes[name] for name in names if name in chosen)
        for name in (names[i] for i in rng.permutation(len(names))):
            fits = name not in chosen and taken + sizes[name] / 2 <= wanted
            if fits and all(groups != {name} for groups in behind):
                chosen.add(name)
                taken += sizes[name]
                for groups in behind:
                    groups.discard(name)
    return chosen
