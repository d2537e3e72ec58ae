"""What happened since a page last asked: decisions, and what they add up to."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from inandout.data.manifest import Sample
from inandout.review.decisions import Decision
from inandout.review.session import ReviewSession
from inandout.review.summary import CHOICES, agreements, joint_decisions, latest, prompt_shares


def updates_since(session: ReviewSession, decisions: Sequence[Decision], since: int) -> dict[str, Any]:
    """Decisions from number `since` on (0 = all), as JSON, with the number to ask from next time, and the summary.

    `count` of a decision says how many the same person has made on the same image, with this one.
    """
    fields = {"image", "decision", "reason", "reviewer", "when"}
    counts: Counter[tuple[str, str]] = Counter()
    fresh = []
    for number, one in enumerate(decisions):
        counts[one.reviewer, one.image] += 1
        if number >= since:
            count = counts[one.reviewer, one.image]
            fresh.append(one.model_dump(mode="json", include=fields) | {"count": count})
    return {"next": len(decisions), "decisions": fresh, "summary": summarise(session.samples, session.ids, decisions)}


def summarise(samples: Sequence[Sample], images: Sequence[str], decisions: Sequence[Decision]) -> dict[str, Any]:
    """Progress of every reviewer, what they say together, their agreement, and the accepted share of every prompt.

    `images` are the digests of `samples`; decisions on others do not count.
    """
    known = set(images)
    ours = [one for one in decisions if one.image in known]
    said = joint_decisions(ours)
    together = Counter(said.values())
    return {
        "images": len(known),
        "reviewers": {reviewer: len(each) for reviewer, each in latest(ours).items()},
        "together": {decision: together[decision] for decision in CHOICES},
        "agreements": [one._asdict() for one in agreements(ours)],
        "prompts": [one._asdict() | {"accepted": one.accepted} for one in prompt_shares(samples, images, said)],
    }
