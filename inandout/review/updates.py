"""What happened since a page last asked: decisions, and what they add up to."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from inandout.data.manifest import Sample
from inandout.review.decisions import Decision
from inandout.review.session import Desk
from inandout.review.summary import VERDICTS, agreements, latest, prompt_shares, verdicts


def news_since(desk: Desk, decisions: Sequence[Decision], since: int) -> dict[str, Any]:
    """Decisions from number `since` on (0 = all), as JSON, with the number to ask from next time, and the summary.

    `count` of a decision says how many the same person has made on the same picture, with this one.
    """
    fields = {"picture", "verdict", "reason", "reviewer", "when"}
    counts: Counter[tuple[str, str]] = Counter()
    fresh = []
    for number, one in enumerate(decisions):
        counts[one.reviewer, one.picture] += 1
        if number >= since:
            count = counts[one.reviewer, one.picture]
            fresh.append(one.model_dump(mode="json", include=fields) | {"count": count})
    return {"next": len(decisions), "decisions": fresh, "summary": summarise(desk.samples, desk.ids, decisions)}


def summarise(samples: Sequence[Sample], pictures: Sequence[str], decisions: Sequence[Decision]) -> dict[str, Any]:
    """Progress of every reviewer, what they say together, their agreement, and the accepted share of every prompt.

    `pictures` are the digests of `samples`; decisions on others do not count.
    """
    known = set(pictures)
    ours = [one for one in decisions if one.picture in known]
    said = verdicts(ours)
    together = Counter(said.values())
    return {
        "pictures": len(known),
        "reviewers": {reviewer: len(each) for reviewer, each in latest(ours).items()},
        "together": {verdict: together[verdict] for verdict in VERDICTS},
        "agreements": [one._asdict() for one in agreements(ours)],
        "prompts": [one._asdict() | {"accepted": one.accepted} for one in prompt_shares(samples, pictures, said)],
    }
