"""Named operating points: thresholds chosen on validation scores, with confidence bounds on their error rates.

A rule is a claim about physical parts from the same distribution as the validation part and holds with 95 % confidence.
Images of one part are not independent, so a part counts once, by its worst image: a defective part escapes if one of
its defect images is missed, a good part is a false reject if one of its images is predicted as a defect.

`recall>=0.95` takes the highest threshold allowed by the exact bound of Clopper and Pearson (1934); for a threshold
that is itself a score, this is Wilks' tolerance limit (1941). Rules that the number of parts cannot support are
refused.
"""

import math
import re
from bisect import bisect_right
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import betaincinv

from inandout.errors import InputError
from inandout.evaluation.metrics import Floats, Labels, Scored, honest_threshold, number_parts

Part = Literal["validation", "test"]
Kind = Literal["validation", "recall", "fpr", "cost"]

CONFIDENCE = 0.95
"""Confidence of every bound. Bounds are one-sided because only higher error rates do harm."""
FEWEST_FOR_COST = 10
"""Minimum number of parts of each label for `cost`: with 10 parts and no error, the exact error bound is 26 %."""


class Rule(NamedTuple):
    """Criterion by which a threshold is chosen."""

    name: str
    """Canonical spelling, for example `recall>=0.95`."""
    kind: Kind
    values: tuple[float, ...]


class Mistakes(BaseModel):
    """Number of misclassified parts of one class, with its confidence bound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wrong: int = Field(ge=0)
    of: int = Field(ge=1)
    per_1000: float = Field(ge=0, le=1000)
    """Escapes per 1000 defective parts, or false rejects per 1000 good parts; no defect rate is assumed."""
    per_1000_at_most: float = Field(ge=0, le=1000)
    """One-sided 95 % confidence bound of `per_1000`."""

    def describe(self, verb: str, noun: str) -> str:
        """Return a claim such as `0 of 60 missed: fewer than 4.9 % escape (95 %)`; the bound is rounded up."""
        bound = math.ceil(self.per_1000_at_most - 1e-9) / 10
        claim = f"fewer than {bound:.1f} %" if self.wrong < self.of else "up to 100 %"
        return f"{self.wrong} of {self.of} {verb}: {claim} {noun} (95 %)"


class OperatingPoint(BaseModel):
    """A threshold, the rule that chose it and its error rates; logits >= threshold are predicted as defects."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    """`recall>=0.95`, `fpr<=0.01`, `cost 50:1`, or `validation` for the threshold of the run's own metrics."""
    threshold: float = Field(allow_inf_nan=False)
    """Defect logit."""
    measured_on: Part
    """Part of the data behind the rates below; the threshold always comes from the validation part."""
    recall: float | None = Field(ge=0, le=1)
    """Share of defective parts that are found in all their defect images; None if there are no positives."""
    fpr: float | None = Field(ge=0, le=1)
    """Share of good parts with a false positive; None if there are no negatives."""
    escapes: Mistakes | None
    """Defective parts predicted as good."""
    false_rejects: Mistakes | None
    """Good parts predicted as defective."""
    defect_share: float | None = Field(None, gt=0, lt=1)
    """Assumed share of defective parts for `cost`; None for other rules."""
    escapes_by_kind: dict[str, Mistakes] = {}
    """Kind of defect to its escapes on the test part; a part with defects of several kinds counts for each of them."""

    def sentences(self) -> tuple[str, ...]:
        """Return one claim on escapes and one on false rejects."""
        missed = self.escapes.describe("missed", "escape") if self.escapes else "no positives: escapes are unknown"
        rejected = (
            self.false_rejects.describe("rejected", "false rejects")
            if self.false_rejects
            else "no negatives: false rejects are unknown"
        )
        return missed, rejected


def mistakes(wrong: int, of: int, tuned: bool = False) -> Mistakes | None:
    """Return `wrong` errors among `of` parts with their bound; None if `of` is 0.

    Args:
        wrong: number of errors.
        of: number of parts.
        tuned: whether the threshold was chosen by these errors; the bound then holds for all thresholds at once.
    """
    if of == 0:
        return None
    bound = simultaneous_bound(wrong, of) if tuned else upper_bound(wrong, of)
    return Mistakes(wrong=wrong, of=of, per_1000=1000 * wrong / of, per_1000_at_most=1000 * bound)


@lru_cache(maxsize=4096)
def upper_bound(wrong: int, of: int) -> float:
    """Return the one-sided 95 % confidence bound of the error rate, 0..1, given `wrong` errors among `of` parts."""
    return float(betaincinv(wrong + 1, of - wrong, CONFIDENCE)) if wrong < of else 1.0


def simultaneous_bound(wrong: int, of: int) -> float:
    """Return the 95 % bound of the error rate, 0..1, that holds for all thresholds at once (Massart 1990)."""
    return min(1.0, wrong / of + math.sqrt(math.log(1 / (1 - CONFIDENCE)) / (2 * of)))


def needed_for(share: float) -> int:
    """Return the smallest number of parts, all correct, that supports the claim of an error rate <= `share`."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-share) - 1e-9)


def parse_rule(text: str) -> Rule:
    """Parse the name of a rule.

    Raises:
        InputError: the name is not a rule, or no number of parts can support its claim.
    """
    plain = "".join(text.split()).lower()
    number = r"(\d*\.?\d+)"
    if plain == "validation":
        return Rule("validation", "validation", ())
    if found := re.fullmatch(f"(recall>=|fpr<=){number}", plain):
        value = float(found[2])
        if not 0 < value < 1:
            raise InputError(f"{text!r}: the share must lie between 0 and 1, both excluded; give recall>=0.95")
        return Rule(f"{found[1]}{value:g}", "recall" if found[1] == "recall>=" else "fpr", (value,))
    if found := re.fullmatch(f"cost{number}:{number}", plain):
        costs = float(found[1]), float(found[2])
        if min(costs) <= 0:
            raise InputError(f"{text!r}: both costs must be above 0; give the cost of an escape first: cost 50:1")
        return Rule(f"cost {costs[0]:g}:{costs[1]:g}", "cost", costs)
    raise InputError(f"{text!r} is no operating point; give recall>=0.95, fpr<=0.01, cost 50:1 or validation")


def choose_point(rule: Rule, scored: Scored, max_fpr: float, defect_share: float | None = None) -> OperatingPoint:
    """Choose the threshold of a rule and measure it, both on validation scores.

    Args:
        rule: see `parse_rule`.
        scored: the validation part.
        max_fpr: false positive rate for `validation` if there are no positives; use the value of the run.
        defect_share: share of defective parts assumed by `cost`, 0..1; None = the share among the validation parts.

    Raises:
        InputError: there are too few defective or good parts for the claim; the message names the required number.
    """
    share = None
    logits, labels = worst_of_parts(scored)
    if rule.kind == "recall":
        threshold = _by_recall(rule, logits[labels == 1])
    elif rule.kind == "fpr":
        threshold = _by_fpr(rule, logits[labels == 0])
    elif rule.kind == "cost":
        _refuse_few_for_cost(rule, labels)
        share = float(labels.mean()) if defect_share is None else defect_share
        threshold = _by_cost(rule, logits, labels, share)
    else:
        threshold = _by_validation(scored, max_fpr)
    tuned = rule.kind in ("cost", "validation")
    return _measure(rule.name, threshold, share, "validation", logits, labels, tuned)


def measure_point(point: OperatingPoint, scored: Scored) -> OperatingPoint:
    """Measure the same threshold on the test part, for all defects and for each kind of defect."""
    logits, labels = worst_of_parts(scored)
    measured = _measure(point.rule, point.threshold, point.defect_share, "test", logits, labels, tuned=False)
    return measured.model_copy(update={"escapes_by_kind": _escapes_by_kind(scored, point.threshold)})


def _escapes_by_kind(scored: Scored, threshold: float) -> dict[str, Mistakes]:
    kinds = np.array(scored.kinds or [""] * len(scored.labels))
    found = {}
    for kind in sorted(set(kinds[scored.labels == 1].tolist()) - {""}):
        images = np.flatnonzero((kinds == kind) & (scored.labels == 1))
        groups = [scored.groups[int(i)] for i in images] if scored.groups else ()
        logits, _ = worst_of_parts(Scored(scored.labels[images], scored.logits[images], groups))
        if escapes := mistakes(int((logits < threshold).sum()), len(logits)):
            found[kind] = escapes
    return found


def worst_of_parts(scored: Scored) -> tuple[Floats, Labels]:
    """Return the worst logit (P,) of each part and its label (P,): the lowest of positives, the highest of negatives.

    A part with images of both labels counts once for each label.
    """
    logits, labels, part_numbers = [], [], number_parts(scored.groups, len(scored.labels))
    for label, worst, start in ((0, np.maximum, -np.inf), (1, np.minimum, np.inf)):
        images = np.flatnonzero(scored.labels == label)
        parts, part_of_image = np.unique(part_numbers[images], return_inverse=True)
        found = np.full(len(parts), start)
        worst.at(found, part_of_image, scored.logits[images])
        logits.append(found)
        labels.append(np.full(len(found), label, np.int64))
    return np.concatenate(logits), np.concatenate(labels)


def _measure(
    rule: str, threshold: float, share: float | None, part: Part, logits: Floats, labels: Labels, tuned: bool
) -> OperatingPoint:
    predicted = logits >= threshold
    escapes = mistakes(int((~predicted & (labels == 1)).sum()), int((labels == 1).sum()), tuned)
    rejects = mistakes(int((predicted & (labels == 0)).sum()), int((labels == 0).sum()), tuned)
    return OperatingPoint(
        rule=rule, threshold=threshold, measured_on=part, escapes=escapes, false_rejects=rejects, defect_share=share,
        recall=1 - escapes.wrong / escapes.of if escapes else None, fpr=rejects.wrong / rejects.of if rejects else None,
    )  # fmt: skip


def _by_recall(rule: Rule, positives: Floats) -> float:
    """Return the highest score that leaves no more positives below it than the bound allows."""
    allowed = _allowed(rule, len(positives), 1 - rule.values[0], "defective")
    return float(np.sort(positives)[allowed])


def _by_fpr(rule: Rule, negatives: Floats) -> float:
    """Return the lowest threshold that no more negatives reach than the bound allows."""
    allowed = _allowed(rule, len(negatives), rule.values[0], "good")
    return _above(np.sort(negatives)[len(negatives) - 1 - allowed])


def _above(score: float) -> float:
    """Return the next higher float32; a float64 step would vanish because classifiers compute in float32."""
    return float(np.nextafter(np.float32(score), np.float32(np.inf)))


def _allowed(rule: Rule, of: int, share: float, what: str) -> int:
    """Return how many of `of` parts may be wrong for the bound to stay within `share`."""
    needed = needed_for(share)
    if of < needed:
        raise InputError(
            f"{rule.name} needs {needed} {what} validation parts for 95 % confidence, but there are {of}; "
            + (_suggestion(what, of) if of else _NONE[what])
        )
    return bisect_right(range(of), share + 1e-12, key=lambda wrong: upper_bound(wrong, of)) - 1


_NONE = {
    "defective": "zero and few shots have none, so use fpr<=... or validation",
    "good": "raise val_share",
}


def _suggestion(what: str, of: int) -> str:
    """Name the strictest rule of the same kind that `of` parts can support."""
    bound = math.ceil(upper_bound(0, of) * 1000) / 1000
    rule = f"recall>={1 - bound:.3g}" if what == "defective" else f"fpr<={bound:.3g}"
    return f"use {rule}, the strictest rule that {of} support, or raise val_share"


def _refuse_few_for_cost(rule: Rule, labels: Labels) -> None:
    for value, what in ((1, "defective"), (0, "good")):
        count = int((labels == value).sum())
        if count < FEWEST_FOR_COST:
            fix = "zero and few shots have none, use another rule" if value == 1 and count == 0 else "raise val_share"
            raise InputError(
                f"{rule.name} needs {FEWEST_FOR_COST} {what} validation parts, but there are {count}; {fix}"
            )


def _by_cost(rule: Rule, logits: Floats, labels: Labels, share: float) -> float:
    """Return the threshold with the lowest mean cost per part; among ties the lowest threshold, which misses fewest."""
    positives, negatives = np.sort(logits[labels == 1]), np.sort(logits[labels == 0])
    candidates = np.append(np.unique(logits), _above(logits.max()))
    missed = np.searchsorted(positives, candidates) / len(positives)
    rejected = 1 - np.searchsorted(negatives, candidates) / len(negatives)
    costs = rule.values[0] * share * missed + rule.values[1] * (1 - share) * rejected
    return float(candidates[np.argmin(costs)])


def _by_validation(scored: Scored, max_fpr: float) -> float:
    threshold, note = honest_threshold(scored.logits, scored.labels, max_fpr)
    if threshold is None:
        raise InputError(f"validation: {note}")
    rounded = float(np.float32(threshold))
    return rounded if rounded >= threshold else _above(rounded)
