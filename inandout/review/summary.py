"""Summaries of decisions: per person and image, per prompt, and the agreement of reviewers."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from inandout.data.manifest import Review, Sample
from inandout.review.decisions import Decision

CHOICES: tuple[Review, ...] = ("keep", "reject", "unsure")


class Agreement(NamedTuple):
    """Agreement of two people."""

    reviewers: tuple[str, str]
    images: int
    """Number of images judged by both."""
    same: int
    """Number of images with the same decision."""
    kappa: float | None
    """Cohen's kappa of the three decisions: 1 = full agreement, 0 = chance. None if undefined: no common image, or a
    single decision on all of them."""


class PromptShare(NamedTuple):
    """Numbers of decided and kept images of one prompt."""

    prompt: str
    images: int
    decided: int
    kept: int

    @property
    def accepted(self) -> float | None:
        """Share of decided images that were kept, 0..1; None before the first decision."""
        return self.kept / self.decided if self.decided else None


Latest = Mapping[str, Mapping[str, Decision]]
"""Maps reviewers to images to their active decision."""


def latest(decisions: Iterable[Decision]) -> Latest:
    """Return the active decision of every person on every image; withdrawn decisions are omitted."""
    active: dict[str, dict[str, Decision]] = defaultdict(dict)
    for decision in decisions:
        if decision.decision:
            active[decision.reviewer][decision.image] = decision
        else:
            active[decision.reviewer].pop(decision.image, None)
    return {reviewer: by_image for reviewer, by_image in active.items() if by_image}


def joint_decisions(decisions: Iterable[Decision]) -> dict[str, Review]:
    """Return the joint decision on each image: the common decision of its reviewers, or unsure if they differ."""
    by_image: dict[str, set[Review]] = defaultdict(set)
    for own in latest(decisions).values():
        for image, decision in own.items():
            by_image[image].add(decision.decision)
    return {image: next(iter(distinct)) if len(distinct) == 1 else "unsure" for image, distinct in by_image.items()}


def agreements(decisions: Iterable[Decision]) -> list[Agreement]:
    """Return the agreement of every pair of reviewers."""
    pairs = combinations(latest(decisions).items(), 2)
    return [_agreement((name1, name2), first, second) for (name1, first), (name2, second) in pairs]


def _agreement(
    names: tuple[str, str], first: Mapping[str, Decision], second: Mapping[str, Decision]
) -> Agreement:  # fmt: skip
    common = sorted(set(first) & set(second))
    a, b = [first[image].decision for image in common], [second[image].decision for image in common]
    same = sum(x == y for x, y in zip(a, b, strict=True))
    return Agreement(names, len(common), same, _kappa(a, b) if len({*a, *b}) > 1 else None)


def _kappa(a: Sequence[Review], b: Sequence[Review]) -> float:
    from sklearn.metrics import cohen_kappa_score  # the page of one reviewer needs no scikit-learn

    return float(cohen_kappa_score(a, b, labels=CHOICES))


def prompt_shares(
    samples: Sequence[Sample], images: Sequence[str], by_image: Mapping[str, Review]
) -> list[PromptShare]:  # fmt: skip
    """Return the shares of every prompt, in order of appearance.

    `images` are the digests of `samples`, `by_image` is the output of `joint_decisions`.
    """
    by_prompt: dict[str, list[Review]] = defaultdict(list)
    for sample, image in zip(samples, images, strict=True):
        by_prompt[sample.prompt].append(by_image.get(image, ""))
    return [
        PromptShare(prompt, len(reviews), sum(review != "" for review in reviews), reviews.count("keep"))
        for prompt, reviews in by_prompt.items()
    ]


def apply_decisions(samples: Sequence[Sample], images: Sequence[str], by_image: Mapping[str, Review]) -> list[Sample]:
    """Return the samples with their decisions in `review`.

    `images` are the digests of `samples`, `by_image` is the output of `joint_decisions`.
    """
    return [
        sample.with_(review=by_image.get(image, "")) for sample, image in zip(samples, images, strict=True)
    ]  # fmt: skip


def certified_prompts(samples: Sequence[Sample]) -> list[str]:
    """Return the prompts with at least one kept image, in order of appearance; `samples` have their `review`."""
    return list(dict.fromkeys(sample.prompt for sample in samples if sample.review == "keep"))


def images_needed(samples: Sequence[Sample], missing: int) -> int:
    """Return how many images of the certified prompts to generate for `missing` kept ones, at the current share.

    `samples` have their `review`, and at least one of them was kept.
    """
    prompts = set(certified_prompts(samples))
    reviews = [sample.review for sample in samples if sample.prompt in prompts and sample.review]
    return math.ceil(missing * len(reviews) / reviews.count("keep"))
