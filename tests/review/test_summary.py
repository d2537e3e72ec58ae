from datetime import UTC, datetime
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

from inandout.data.manifest import Review, Sample
from inandout.review.decisions import Decision
from inandout.review.summary import agreements, apply_decisions, joint_decisions, latest, prompt_shares

IDS = [f"{n:032x}" for n in range(6)]


def said(reviewer: str, *decisions: Review) -> list[Decision]:
    """Decisions on the first images; an empty one takes back."""
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Decision(image=image, decision=decision, reviewer=reviewer, when=when)
        for image, decision in zip(IDS, decisions, strict=False)
    ]


def test_the_last_word_of_each_person_holds() -> None:
    decisions = said("Anna", "keep", "keep") + said("Ben", "reject") + said("Anna", "reject", "")
    holding = latest(decisions)
    assert {who: [(one.image, one.decision) for one in each.values()] for who, each in holding.items()} == {
        "Anna": [(IDS[0], "reject")],
        "Ben": [(IDS[0], "reject")],
    }


def test_where_people_differ_a_image_is_unsure() -> None:
    decisions = said("Anna", "keep", "keep", "reject") + said("Ben", "keep", "reject")
    assert joint_decisions(decisions) == {IDS[0]: "keep", IDS[1]: "unsure", IDS[2]: "reject"}


def test_kappa_is_that_of_the_images_both_judged() -> None:
    a: list[Review] = ["keep", "keep", "reject", "unsure", "keep"]
    b: list[Review] = ["keep", "reject", "reject", "keep"]
    (one,) = agreements(said("Anna", *a) + said("Ben", *b))
    assert (one.reviewers, one.images, one.same) == (("Anna", "Ben"), 4, 2)
    assert one.kappa == pytest.approx(cohen_kappa_score(a[:4], b))
    assert len(agreements(said("Anna", *a) + said("Ben", *b) + said("Cleo", *b))) == 3


def test_kappa_is_undefined_and_not_nan_without_common_images_or_with_one_decision() -> None:
    assert agreements(said("Anna", "keep", "keep") + said("Ben", "keep", "keep"))[0].kappa is None
    apart = said("Anna", "keep") + said("Ben", "", "keep")
    assert (agreements(apart)[0].images, agreements(apart)[0].kappa) == (0, None)
    assert agreements(said("Anna", "keep")) == []


def rows(*prompts: str) -> list[Sample]:
    return [Sample(image=Path(f"/{n}.png"), label=1, prompt=prompt) for n, prompt in enumerate(prompts)]


def test_the_accepted_share_is_of_those_decided_and_absent_before_the_first() -> None:
    joint = joint_decisions(said("Anna", "keep", "keep", "reject"))
    shares = prompt_shares(rows("a", "b", "a", "a", "c"), IDS[:5], joint)
    assert [(one.prompt, one.images, one.decided, one.kept) for one in shares] == [
        ("a", 3, 2, 1), ("b", 1, 1, 1), ("c", 1, 0, 0)
    ]  # fmt: skip
    assert [one.accepted for one in shares] == [0.5, 1.0, None]


def test_decisions_go_into_the_rows_of_a_manifest() -> None:
    marked = apply_decisions(rows("a", "b", "c"), IDS[:3], joint_decisions(said("Anna", "keep", "reject")))
    assert [one.review for one in marked] == ["keep", "reject", ""]
