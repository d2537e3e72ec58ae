"""Updates for the page: new decisions and the summary of all decisions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from inandout.data.manifest import Sample
from inandout.review.decisions import Decision
from inandout.review.session import ReviewSession
from inandout.review.summary import CHOICES, agreements, joint_decisions, latest, prompt_shares


def updates_since(session: ReviewSession, decisions: Sequence[Decision], since: int) -> dict[str, Any]:
    """Return the decisions from index `since` on (0 = all), the next index and the summary, as JSON.

    `count` of a decision is the number of decisions of the same person on the same image up to this one.
    """
    fields = {"image", "decision", "reason", "reviewer", "when"}
    counts: Counter[tuple[str, str]] = Counter()
    new = []
    for number, decision in enumerate(decisions):
        counts[decision.reviewer, decision.image] += 1
        if number >= since:
            count = counts[decision.reviewer, decision.image]
            new.append(decision.model_dump(mode="json", include=fields) | {"count": count})
    return {"next": len(decisions), "decisions": new, "summary": summarise(session.samples, session.ids, decisions)}


def summarise(samples: Sequence[Sample], images: Sequence[str], decisions: Sequence[Decision]) -> dict[str, Any]:
    """Return the progress of every reviewer, joint decisions, agreements and the accepted share of every prompt.

    `images` are the digests of `samples`; decisions on other images are ignored.
    """
    known = set(images)
    relevant = [decision for decision in decisions if decision.image in known]
    by_image = joint_decisions(relevant)
    together = Counter(by_image.values())
    return {
        "images": len(known),
        "reviewers": {reviewer: len(own) for reviewer, own in latest(relevant).items()},
        "together": {decision: together[decision] for decision in CHOICES},
        "agreements": [agreement._asdict() for agreement in agreements(relevant)],
        "prompts": [
            share._asdict() | {"accepted": share.accepted} for share in prompt_shares(samples, images, by_image)
        ],
    }
