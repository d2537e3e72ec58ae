"""The gate of `@champion`: what a version must show to take the place of the one before."""

from typing import NamedTuple

from inandout.evaluation.metrics import Scored
from inandout.evaluation.paired_test import METRICS, paired_difference


class GateDecision(NamedTuple):
    """Whether a challenger becomes the champion, and why."""

    wins: bool
    why: str


def champion_gate(challenger: Scored, champion: Scored | None, version: str) -> GateDecision:
    """The gate: the first of a name passes; another one if its test AP is higher beyond what chance explains.

    Args:
        challenger: test part of the new one.
        champion: of the champion, on the same images in the same order; None where there is none.
        version: number of the champion, for the sentence.
    """
    if champion is None:
        return GateDecision(True, "passed: the first of this name")
    found = paired_difference([challenger], [champion], METRICS["AP"])
    rise = f"test AP {found.mean:+.3f} (95 % {found.low:+.3f} .. {found.high:+.3f}) over champion version {version}"
    wins = found.low > 0
    return GateDecision(wins, f"{'passed' if wins else 'not passed'}: {rise}: {found.verdict()}")
