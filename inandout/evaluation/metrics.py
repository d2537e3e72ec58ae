"""What the scores say: average precision, operating points by two protocols, and how sure the numbers are.

Protocol `honest`: the threshold is chosen without the test set. Protocol `paper`: the threshold with the best F1 on the
test set, as the literature does; its metrics carry `oracle` in their name.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from inandout.errors import InputError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Weights = npt.NDArray[np.int64]

BOOTSTRAP_ROUNDS = 1000


class Scored(NamedTuple):
    """A part of the data as a trained classifier sees it."""

    labels: Labels
    """(N,) of 0 and 1."""
    logits: Floats
    """(N,) of the defect; logits and not probabilities, because a saturated sigmoid makes ties."""
    groups: Sequence[str] = ()
    """(N,): the physical part that an image shows; () = each its own."""


class Evaluation(NamedTuple):
    """Metrics that are defined, and one sentence for each that is not or needs a remark."""

    values: dict[str, float]
    notes: tuple[str, ...]


def evaluate(test: Scored, val: Scored, max_fpr: float, seed: int) -> Evaluation:
    """Everything that is reported of one trained classifier.

    Args:
        test: what it is measured on.
        val: what the honest threshold comes from; without positives (zero and few shot) from the negatives alone.
        max_fpr: the share of validation negatives above the threshold in that case, 0..1.
        seed: of the bootstrap.

    Raises:
        InputError: a logit is not finite.
    """
    if not (np.isfinite(test.logits).all() and np.isfinite(val.logits).all()):
        raise InputError("some logits are NaN or infinite: training broke the model; lower lr and start again")
    if len(np.unique(test.labels)) < 2:
        return Evaluation({}, ("the test part has one class only: average precision, precision and recall undefined",))
    values = ranking(test.logits, test.labels) | bootstrap_ap(test, seed)
    values |= operating_point(test.logits, test.labels, best_f1_threshold(test.logits, test.labels), "oracle_")
    notes = ["all test scores are equal: the classifier decides nothing, AP is the share of positives"]
    notes = notes if np.ptp(test.logits) == 0 else []
    threshold, note = honest_threshold(val.logits, val.labels, max_fpr)
    if threshold is not None:
        values |= operating_point(test.logits, test.labels, threshold, "")
    return Evaluation(values, (*notes, note))


def ranking(logits: Floats, labels: Labels) -> dict[str, float]:
    """Threshold-free metrics of scores (N,) with both labels.

    `ap` is scikit-learn's average precision; `ap_trapezoid` is the area under the PR curve by the trapezoid, as the
    official KolektorSDD2 code has it, which flatters ties.
    """
    precision, recall, _ = precision_recall_curve(labels, logits)
    fpr, tpr, _ = roc_curve(labels, logits, drop_intermediate=False)
    return {
        "ap": float(average_precision_score(labels, logits)),
        "ap_trapezoid": float(auc(recall, precision)),
        "recall_at_fpr_1": float(tpr[fpr <= 0.01].max()),
        "fpr_at_recall_95": float(fpr[tpr >= 0.95].min()),
    }


def bootstrap_ap(test: Scored, seed: int, rounds: int = BOOTSTRAP_ROUNDS) -> dict[str, float]:
    """95 % percentile interval of AP over the draw of test parts."""
    weights = draw_parts(test.labels, test.groups, np.random.default_rng(seed), rounds)
    low, high = np.quantile(average_precisions(test, weights), [0.025, 0.975])
    return {"ap_low": float(low), "ap_high": float(high)}


def draw_parts(labels: Labels, groups: Sequence[str], rng: np.random.Generator, rounds: int) -> Weights:
    """The rounds of a bootstrap, (R, N): how often each image is in the draw of physical parts, with replacement.

    Each label is drawn on its own. Images of one part are drawn together: ten photographs of one scratch are far from
    ten scratches, and an interval that takes them for that is too narrow.

    Args:
        labels: (N,) of 0 and 1.
        groups: (N,): the part that an image shows, "" = one of its own; () = each its own.
        rng: where the draws come from.
        rounds: R.
    """
    weights = np.empty((rounds, len(labels)), np.int64)
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        names = [(groups[i] if groups else "") or f"\0{i}" for i in images.tolist()]
        known, part = np.unique(names, return_inverse=True)
        shares = np.full(len(known), 1 / len(known))
        weights[:, images] = rng.multinomial(len(known), shares, size=rounds)[:, part]
    return weights


def average_precisions(scored: Scored, weights: Weights) -> Floats:
    """(R,): scikit-learn's average precision for each of R weightings (R, N) of the images, all at once."""
    hits, alarms = _called(scored, weights)
    precision = hits / np.maximum(hits + alarms, 1)
    averages: Floats = (np.diff(hits, axis=1, prepend=0) * precision).sum(axis=1) / hits[:, -1]
    return averages


def recalls_at_fpr(scored: Scored, weights: Weights, max_fpr: float) -> Floats:
    """(R,): the highest recall with a false positive rate of `max_fpr` at most, as `average_precisions`."""
    hits, alarms = _called(scored, weights)
    recalls: Floats = np.where(alarms <= max_fpr * alarms[:, -1:], hits, 0).max(axis=1) / hits[:, -1]
    return recalls


def _called(scored: Scored, weights: Weights) -> tuple[Weights, Weights]:
    """Positives and negatives (R, K) that are called defects at each of the K thresholds, from the highest down."""
    order = np.argsort(-scored.logits, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scored.logits[order]) != 0, True))  # of equal logits
    ranked, positive = weights[:, order], scored.labels[order] == 1
    hits, alarms = np.cumsum(ranked * positive, axis=1), np.cumsum(ranked * ~positive, axis=1)
    return hits[:, last], alarms[:, last]


def best_f1_threshold(logits: Floats, labels: Labels) -> float:
    """The threshold with the best F1; needs at least one positive. A score equal to it counts as a defect."""
    precision, recall, thresholds = precision_recall_curve(labels, logits)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return float(thresholds[np.argmax(f1[:-1])])


def honest_threshold(logits: Floats, labels: Labels, max_fpr: float) -> tuple[float | None, str]:
    """A threshold from the validation part alone, and how it was chosen.

    With validation positives: the best F1. Without: the lowest threshold that at most `max_fpr` of the negatives reach.
    Without negatives there is none.
    """
    negatives = logits[labels == 0]
    if not len(negatives):
        return None, "no validation negatives: no honest threshold, so no honest precision and recall"
    if labels.any():
        return best_f1_threshold(logits, labels), f"threshold: best F1 on {len(labels)} validation images"
    allowed = math.floor(max_fpr * len(negatives) + 1e-9)
    threshold = np.nextafter(np.sort(negatives)[len(negatives) - 1 - allowed], np.inf)
    above = int((negatives >= threshold).sum())
    return float(threshold), f"threshold: {above} of {len(negatives)} validation negatives score above it"


def operating_point(logits: Floats, labels: Labels, threshold: float, prefix: str) -> dict[str, float]:
    """Precision, recall and F1 where scores of at least `threshold` are called defects.

    Precision is 0 where nothing is called a defect.
    """
    called = logits >= threshold
    hits = float((called & (labels == 1)).sum())
    precision = hits / max(called.sum(), 1)
    recall = hits / (labels == 1).sum()
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {
        f"{prefix}threshold": threshold,
        f"{prefix}precision": float(precision),
        f"{prefix}recall": float(recall),
        f"{prefix}f1": f1,
    }
