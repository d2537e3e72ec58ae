"""What decisions add up to: per person and image, per prompt, and how far two people agree."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from sklearn.metrics import cohen_kappa_score

from inandout.data.manifest import Review, Sample
from inandout.review.decisions import Decision

CHOICES: tuple[Review, ...] = ("keep", "reject", "unsure")


class Agreement(NamedTuple):
    """Of two people who judged the same images."""

    reviewers: tuple[str, str]
    images: int
    """That both decided on."""
    same: int
    """Of these, on which they said the same."""
    kappa: float | None
    """Cohen's, of the three decisions: 1 is full agreement, 0 what chance gives. None where it is undefined: no image
    in common, or both said one and the same of all."""


class PromptShare(NamedTuple):
    """How the images of one prompt fared."""

    prompt: str
    images: int
    decided: int
    kept: int

    @property
    def accepted(self) -> float | None:
        """Kept of those decided, 0..1; None before the first decision."""
        return self.kept / self.decided if self.decided else None


Latest = Mapping[str, Mapping[str, Decision]]
"""Reviewer to image to the decision that holds."""


def latest(decisions: Iterable[Decision]) -> Latest:
    """The decision that holds for every person and image; none where it was taken back."""
    holding: dict[str, dict[str, Decision]] = defaultdict(dict)
    for one in decisions:
        if one.decision:
            holding[one.reviewer][one.image] = one
        else:
            holding[one.reviewer].pop(one.image, None)
    return {reviewer: images for reviewer, images in holding.items() if images}


def joint_decisions(decisions: Iterable[Decision]) -> dict[str, Review]:
    """Image to what its reviewers say together: what all who decided said, or unsure where they differ."""
    said: dict[str, set[Review]] = defaultdict(set)
    for images in latest(decisions).values():
        for image, one in images.items():
            said[image].add(one.decision)
    return {image: next(iter(each)) if len(each) == 1 else "unsure" for image, each in said.items()}


def agreements(decisions: Iterable[Decision]) -> list[Agreement]:
    """Every pair of people."""
    return [_agreement((a, b), mine, theirs) for (a, mine), (b, theirs) in combinations(latest(decisions).items(), 2)]


def _agreement(
    names: tuple[str, str], mine: Mapping[str, Decision], theirs: Mapping[str, Decision]
) -> Agreement:  # fmt: skip
    both = sorted(set(mine) & set(theirs))
    a, b = [mine[image].decision for image in both], [theirs[image].decision for image in both]
    same = sum(x == y for x, y in zip(a, b, strict=True))
    kappa = float(cohen_kappa_score(a, b, labels=CHOICES)) if len({*a, *b}) > 1 else None
    return Agreement(names, len(both), same, kappa)


def prompt_shares(samples: Sequence[Sample], images: Sequence[str], said: Mapping[str, Review]) -> list[PromptShare]:
    """Every prompt in order of appearance; `images` are the digests of `samples`, `said` is `joint_decisions`."""
    rows: dict[str, list[Review]] = defaultdict(list)
    for sample, image in zip(samples, images, strict=True):
        rows[sample.prompt].append(said.get(image, ""))
    return [
        PromptShare(prompt, len(each), sum(one != "" for one in each), each.count("keep"))
        for prompt, each in rows.items()
    ]


def apply_decisions(samples: Sequence[Sample], images: Sequence[str], said: Mapping[str, Review]) -> list[Sample]:
    """The rows with what was decided in `review`; `images` are their digests, `said` is `joint_decisions`."""
    return [
        sample.with_(review=said.get(image, "")) for sample, image in zip(samples, images, strict=True)
    ]  # fmt: skip


def certified(samples: Sequence[Sample]) -> list[str]:
    """Prompts of which an image was kept, in order of appearance; `samples` have what was decided in `review`."""
    return list(dict.fromkeys(sample.prompt for sample in samples if sample.review == "keep"))


def enough(samples: Sequence[Sample], missing: int) -> int:
    """How many new images of the certified prompts it takes until `missing` more are kept, if the share stays.

    `samples` have what was decided in `review`, and one of them at least was kept.
    """
    prompts = set(certified(samples))
    said = [sample.review for sample in samples if sample.prompt in prompts and sample.review]
    return math.ceil(missing * len(said) / said.count("keep"))
