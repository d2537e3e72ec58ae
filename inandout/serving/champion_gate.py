"""The gate for promotion to `@champion`."""

from typing import NamedTuple

from inandout.evaluation.metrics import Scored
from inandout.evaluation.paired_test import METRICS, paired_difference


class GateDecision(NamedTuple):
    """Whether a challenger becomes the champion, and the reason."""

    wins: bool
    why: str


def champion_gate(challenger: Scored, champion: Scored | None, version: str) -> GateDecision:
    """Decide on a challenger: the first version passes, a later one if its test AP is significantly higher.

    Args:
        challenger: test scores of the challenger.
        champion: test scores of the champion for the same images in the same order; None without a champion.
        version: version number of the champion, for the message.
    """
    if champion is None:
        return GateDecision(True, "passed: the first version of this name")
    change = paired_difference([challenger], [champion], METRICS["AP"])
    gain = f"test AP {change.text()} over champion version {version}"
    wins = change.low > 0
    return GateDecision(wins, f"{'passed' if wins else 'not passed'}: {gain}: {change.verdict()}")
