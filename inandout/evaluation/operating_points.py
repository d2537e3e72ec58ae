"""Operating points by name: a threshold chosen on validation scores, and what it lets through with which certainty.

A rule is a claim about parts like those of the validation part, and holds with 95 % confidence: `recall>=0.95` takes
the highest threshold for which the exact bound of Clopper and Pearson (1934) allows it, which for a threshold that is
itself a score is Wilks' tolerance limit (1941). What no outcome on so few images could support is refused.
"""

import math
import re
from bisect import bisect_right
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import binomtest

from inandout.errors import InputError
from inandout.evaluation.metrics import Floats, Labels, honest_threshold

Part = Literal["validation", "test"]
Kind = Literal["validation", "recall", "fpr", "cost"]

CONFIDENCE = 0.95
"""Of every bound; bounds are one-sided, because only the worse direction costs anything."""
FEWEST_FOR_COST = 10
"""Images of each label that `cost` asks for: from fewer, even without a mistake, a rate is unknown within 26 %."""


class Rule(NamedTuple):
    """What a threshold is chosen by."""

    name: str
    """As it is written everywhere: `recall>=0.95`."""
    kind: Kind
    values: tuple[float, ...]


class Mistakes(BaseModel):
    """How many parts of one kind were taken for the other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wrong: int = Field(ge=0)
    of: int = Field(ge=1)
    per_1000: float = Field(ge=0, le=1000)
    """Of 1000 defective parts for escapes, of 1000 good ones for false rejects; so no share of defects is assumed."""
    per_1000_at_most: float = Field(ge=0, le=1000)
    """95 % confidence bound of that, Clopper and Pearson, one-sided."""

    def words(self, verb: str, noun: str) -> str:
        """`0 of 60 missed: fewer than 4.9 % escape (95 %)`; the bound is rounded up."""
        bound = math.ceil(self.per_1000_at_most - 1e-9) / 10
        claim = f"fewer than {bound:.1f} %" if self.wrong < self.of else "up to 100 %"
        return f"{self.wrong} of {self.of} {verb}: {claim} {noun} (95 %)"


class OperatingPoint(BaseModel):
    """A threshold with the name of what it was chosen for; a defect is called where logit >= threshold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    """`recall>=0.95`, `fpr<=0.01`, `cost 50:1`, or `validation`: the threshold that the run's own metrics are at."""
    threshold: float = Field(allow_inf_nan=False)
    """A defect logit."""
    measured_on: Part
    """The part that everything below was counted on; the threshold always comes from the validation part."""
    recall: float | None = Field(ge=0, le=1)
    """None where that part has no positives."""
    fpr: float | None = Field(ge=0, le=1)
    """Share of the negatives that are called defects; None where the part has no negatives."""
    escapes: Mistakes | None
    """Defective parts that pass."""
    false_rejects: Mistakes | None
    """Good parts that are called defective."""
    defect_share: float | None = Field(None, gt=0, lt=1)
    """Assumed share of defective parts, by which `cost` weighs; None for rules that need none."""

    def sentences(self) -> tuple[str, ...]:
        """What may be said of escapes and of false rejects."""
        missed = self.escapes.words("missed", "escape") if self.escapes else "no positives: nothing known of escapes"
        rejected = (
            self.false_rejects.words("rejected", "false rejects")
            if self.false_rejects
            else "no negatives: nothing known of false rejects"
        )
        return missed, rejected


def mistakes(wrong: int, of: int) -> Mistakes | None:
    """Counts with their bound; None of no parts."""
    if of == 0:
        return None
    return Mistakes(wrong=wrong, of=of, per_1000=1000 * wrong / of, per_1000_at_most=1000 * upper_bound(wrong, of))


@lru_cache(maxsize=4096)
def upper_bound(wrong: int, of: int) -> float:
    """The share, 0..1, that is exceeded with at most 5 % probability given `wrong` of `of`."""
    return float(binomtest(wrong, of, alternative="less").proportion_ci(CONFIDENCE, method="exact").high)


def needed_for(share: float) -> int:
    """The fewest parts, none of them wrong, from which a share of mistakes of at most `share` can be claimed."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-share) - 1e-9)


def parse_rule(text: str) -> Rule:
    """A rule from its name.

    Raises:
        InputError: it is none, or promises what no number of images can show.
    """
    plain = "".join(text.split()).lower()
    number = r"(\d*\.?\d+)"
    if plain == "validation":
        return Rule("validation", "validation", ())
    if found := re.fullmatch(f"(recall>=|fpr<=){number}", plain):
        value = float(found[2])
        if not 0 < value < 1:
            raise InputError(f"{text!r}: the share must lie between 0 and 1; no number of images shows 0 or 1 itself")
        return Rule(f"{found[1]}{value:g}", "recall" if found[1] == "recall>=" else "fpr", (value,))
    if found := re.fullmatch(f"cost{number}:{number}", plain):
        costs = float(found[1]), float(found[2])
        if min(costs) <= 0:
            raise InputError(f"{text!r}: both costs must be above 0, that of an escape first: cost 50:1")
        return Rule(f"cost {costs[0]:g}:{costs[1]:g}", "cost", costs)
    raise InputError(f"{text!r} is no operating point; give recall>=0.95, fpr<=0.01, cost 50:1 or validation")


def choose_point(
    rule: Rule, logits: Floats, labels: Labels, max_fpr: float, defect_share: float | None = None
) -> OperatingPoint:
    """The operating point of a rule, chosen and counted on validation scores.

    Args:
        rule: see `parse_rule`.
        logits: (N,) defect logits of the validation part.
        labels: (N,) of 0 and 1.
        max_fpr: what `validation` takes where there are no positives, as the run was measured with.
        defect_share: share of defective parts, 0..1, that `cost` weighs by; None = that of these labels.

    Raises:
        InputError: too few positives or negatives for the claim; the message names the number that is needed.
    """
    share = None
    if rule.kind == "recall":
        threshold = _by_recall(rule, logits[labels == 1])
    elif rule.kind == "fpr":
        threshold = _by_fpr(rule, logits[labels == 0])
    elif rule.kind == "cost":
        _refuse_few_for_cost(rule, labels)
        share = float(labels.mean()) if defect_share is None else defect_share
        threshold = _by_cost(rule, logits, labels, share)
    else:
        threshold = _by_validation(logits, labels, max_fpr)
    return _counted(rule.name, threshold, share, "validation", logits, labels)


def measure_point(point: OperatingPoint, logits: Floats, labels: Labels) -> OperatingPoint:
    """The same threshold, counted on test scores (N,) and labels (N,)."""
    return _counted(point.rule, point.threshold, point.defect_share, "test", logits, labels)


def _counted(
    rule: str, threshold: float, share: float | None, part: Part, logits: Floats, labels: Labels
) -> OperatingPoint:
    called = logits >= threshold
    escapes = mistakes(int((~called & (labels == 1)).sum()), int((labels == 1).sum()))
    rejects = mistakes(int((called & (labels == 0)).sum()), int((labels == 0).sum()))
    return OperatingPoint(
        rule=rule, threshold=threshold, measured_on=part, escapes=escapes, false_rejects=rejects, defect_share=share,
        recall=1 - escapes.wrong / escapes.of if escapes else None, fpr=rejects.wrong / rejects.of if rejects else None,
    )  # fmt: skip


def _by_recall(rule: Rule, positives: Floats) -> float:
    """The highest score that leaves no more positives below it than the bound allows."""
    allowed = _allowed(rule, len(positives), 1 - rule.values[0], "positives")
    return float(np.sort(positives)[allowed])


def _by_fpr(rule: Rule, negatives: Floats) -> float:
    """The lowest threshold that no more negatives reach than the bound allows: just above the score of the next one."""
    allowed = _allowed(rule, len(negatives), rule.values[0], "negatives")
    return _above(np.sort(negatives)[len(negatives) - 1 - allowed])


def _above(score: float) -> float:
    """The next threshold; a step of float32, in which classifiers compute, or it would be lost there."""
    return float(np.nextafter(np.float32(score), np.float32(np.inf)))


def _allowed(rule: Rule, of: int, share: float, what: str) -> int:
    """How many of `of` may be wrong for the bound to stay within `share`."""
    needed = needed_for(share)
    if of < needed:
        raise InputError(
            f"{rule.name} needs {needed} validation {what} to be claimed with 95 % confidence, and there are {of}; "
            + (_possible(what, of) if of else _NONE[what])
        )
    return bisect_right(range(of), share + 1e-12, key=lambda wrong: upper_bound(wrong, of)) - 1


_NONE = {
    "positives": "zero and few shots have none: only fpr<=... and validation are possible",
    "negatives": "keep some for validation (val_share)",
}


def _possible(what: str, of: int) -> str:
    """The strictest rule of the same kind that so many images can support."""
    least = math.ceil(upper_bound(0, of) * 1000) / 1000
    rule = f"recall>={1 - least:.3g}" if what == "positives" else f"fpr<={least:.3g}"
    return f"the most that {of} can show is {rule}; ask for that, or keep more for validation (val_share)"


def _refuse_few_for_cost(rule: Rule, labels: Labels) -> None:
    for value, what in ((1, "positives"), (0, "negatives")):
        there = int((labels == value).sum())
        if there < FEWEST_FOR_COST:
            also = "; with zero and few shots there are none" if value == 1 and there == 0 else ""
            raise InputError(f"{rule.name} needs {FEWEST_FOR_COST} validation {what}, and there are {there}{also}")


def _by_cost(rule: Rule, logits: Floats, labels: Labels, share: float) -> float:
    """The threshold of the least mean cost of a part; of equal ones the lowest, which misses least."""
    positives, negatives = np.sort(logits[labels == 1]), np.sort(logits[labels == 0])
    candidates = np.append(np.unique(logits), _above(logits.max()))
    missed = np.searchsorted(positives, candidates) / len(positives)
    rejected = 1 - np.searchsorted(negatives, candidates) / len(negatives)
    costs = rule.values[0] * share * missed + rule.values[1] * (1 - share) * rejected
    return float(candidates[np.argmin(costs)])


def _by_validation(logits: Floats, labels: Labels, max_fpr: float) -> float:
    threshold, note = honest_threshold(logits, labels, max_fpr)
    if threshold is None:
        raise InputError(f"validation: {note}")
    rounded = float(np.float32(threshold))
    return rounded if rounded >= threshold else _above(rounded)
