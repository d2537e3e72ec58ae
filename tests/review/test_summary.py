from datetime import UTC, datetime
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

from inandout.data.manifest import Review, Sample
from inandout.review.decisions import Decision
from inandout.review.summary import agreements, apply_decisions, joint_decisions, latest, prompt_shares

IDS = [f"{n:032x}" for n in range(6)]


def decide(reviewer: str, *decisions: Review) -> list[Decision]:
    """Return decisions on the first images; an empty decision withdraws."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Decision(image=image, decision=decision, reviewer=reviewer, when=when)
        for image, decision in zip(IDS, decisions, strict=False)
    ]


def test_the_last_decision_of_each_person_is_active() -> None:
    decisions = decide("Anna", "keep", "keep") + decide("Ben", "reject") + decide("Anna", "reject", "")
    active = latest(decisions)
    decisions_by_reviewer = {
        reviewer: [(decision.image, decision.decision) for decision in own.values()] for reviewer, own in active.items()
    }
    assert decisions_by_reviewer == {
        "Anna": [(IDS[0], "reject")],
        "Ben": [(IDS[0], "reject")],
    }


def test_an_image_with_different_decisions_is_unsure() -> None:
    decisions = decide("Anna", "keep", "keep", "reject") + decide("Ben", "keep", "reject")
    assert joint_decisions(decisions) == {IDS[0]: "keep", IDS[1]: "unsure", IDS[2]: "reject"}


def test_kappa_is_computed_on_common_images() -> None:
    a: list[Review] = ["keep", "keep", "reject", "unsure", "keep"]
    b: list[Review] = ["keep", "reject", "reject", "keep"]
    (agreement,) = agreements(decide("Anna", *a) + decide("Ben", *b))
    assert (agreement.reviewers, agreement.images, agreement.same) == (("Anna", "Ben"), 4, 2)
    assert agreement.kappa == pytest.approx(cohen_kappa_score(a[:4], b))
    assert len(agreements(decide("Anna", *a) + decide("Ben", *b) + decide("Cleo", *b))) == 3


def test_kappa_is_none_without_common_images_or_with_a_single_decision() -> None:
    assert agreements(decide("Anna", "keep", "keep") + decide("Ben", "keep", "keep"))[0].kappa is None
    disjoint = decide("Anna", "keep") + decide("Ben", "", "keep")
    assert (agreements(disjoint)[0].images, agreements(disjoint)[0].kappa) == (0, None)
    assert agreements(decide("Anna", "keep")) == []


def rows(*prompts: str) -> list[Sample]:
    return [Sample(image=Path(f"/{n}.png"), label=1, prompt=prompt) for n, prompt in enumerate(prompts)]


def test_the_accepted_share_is_relative_to_decided_images_and_none_before_the_first() -> None:
    shares = prompt_shares(
        rows("a", "b", "a", "a", "c"), IDS[:5], joint_decisions(decide("Anna", "keep", "keep", "reject"))
    )
    assert [(share.prompt, share.images, share.decided, share.kept) for share in shares] == [
        ("a", 3, 2, 1), ("b", 1, 1, 1), ("c", 1, 0, 0)
    ]  # fmt: skip
    assert [share.accepted for share in shares] == [0.5, 1.0, None]


def test_decisions_are_written_to_the_samples() -> None:
    marked = apply_decisions(rows("a", "b", "c"), IDS[:3], joint_decisions(decide("Anna", "keep", "reject")))
    assert [sample.review for sample in marked] == ["keep", "reject", ""]
