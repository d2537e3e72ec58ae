"""Classification metrics: average precision, operating points by two protocols, and bootstrap intervals.

The `honest` protocol chooses the threshold without the test set. The `paper` protocol uses the threshold with the best
F1 on the test set, as is common in the literature; its metrics have the prefix `oracle_`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inandout.errors import InputError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Weights = npt.NDArray[np.int64]

BOOTSTRAP_ROUNDS = 1000


class Scored(NamedTuple):
    """Labels and classifier outputs for N images."""

    labels: Labels
    """(N,), 0 or 1."""
    logits: Floats
    """(N,) defect logits; probabilities would have ties where the sigmoid saturates."""
    groups: Sequence[str] = ()
    """(N,) physical part shown by each image; () = every image shows a different part."""
    kinds: Sequence[str] = ()
    """(N,) kind of defect of each image, "" = unknown; () = all unknown."""


class Evaluation(NamedTuple):
    """The defined metrics, and one sentence for each undefined metric or caveat."""

    values: dict[str, float]
    notes: tuple[str, ...]


def evaluate(test: Scored, val: Scored, max_fpr: float, seed: int) -> Evaluation:
    """Return all reported metrics of one trained classifier.

    Args:
        test: test part.
        val: validation part, which determines the honest threshold. Without positives (zero and few shot), the
            threshold depends on the negatives alone.
        max_fpr: maximum share of validation negatives above the threshold in that case, 0..1.
        seed: seed of the bootstrap.

    Raises:
        InputError: a logit is not finite.
    """
    if not (np.isfinite(test.logits).all() and np.isfinite(val.logits).all()):
        raise InputError("some logits are NaN or infinite because training diverged; lower lr and train again")
    if len(np.unique(test.labels)) < 2:
        note = "the test part has one class only: average precision, precision and recall are undefined"
        return Evaluation({}, (note,))
    values = ranking(test.logits, test.labels) | bootstrap_intervals(test, seed)
    values |= operating_point(test.logits, test.labels, best_f1_threshold(test.logits, test.labels), "oracle_")
    notes = ["all test scores are equal: the classifier separates nothing and AP is the share of positives"]
    notes = notes if np.ptp(test.logits) == 0 else []
    threshold, note = honest_threshold(val.logits, val.labels, max_fpr)
    if threshold is not None:
        values |= operating_point(test.logits, test.labels, threshold, "")
    return Evaluation(values, (*notes, note))


def ranking(logits: Floats, labels: Labels) -> dict[str, float]:
    """Return threshold-free metrics of logits (N,) and labels (N,), which must contain both classes.

    `ap` is scikit-learn's average precision. `ap_trapezoid` is the area under the PR curve by the trapezoidal rule, as
    in the official KolektorSDD2 code; it is too high if scores are tied.
    """
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    precision, recall, _ = precision_recall_curve(labels, logits)
    fpr, tpr, _ = roc_curve(labels, logits, drop_intermediate=False)
    return {
        "ap": float(average_precision_score(labels, logits)),
        "ap_trapezoid": float(auc(recall, precision)),
        "auroc": float(roc_auc_score(labels, logits)),
        "recall_at_fpr_1": float(tpr[fpr <= 0.01].max()),
        "fpr_at_recall_95": float(fpr[tpr >= 0.95].min()),
    }


def bootstrap_intervals(test: Scored, seed: int, rounds: int = BOOTSTRAP_ROUNDS) -> dict[str, float]:
    """Return the 95 % bootstrap percentile intervals of AP and AUROC over test parts."""
    weights = draw_parts(test.labels, test.groups, np.random.default_rng(seed), rounds)
    intervals: dict[str, float] = {}
    for name, metric in (("ap", average_precisions), ("auroc", aurocs)):
        low, high = np.quantile(metric(test, weights), [0.025, 0.975])
        intervals |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return intervals


def draw_parts(labels: Labels, groups: Sequence[str], rng: np.random.Generator, rounds: int) -> Weights:
    """Return bootstrap weights (R, N): how often each image is drawn in each round.

    Physical parts are resampled with replacement, separately for each label. Images of one part are drawn together;
    treating them as independent would make intervals too narrow.

    Args:
        labels: (N,), 0 or 1.
        groups: (N,) physical part shown by each image; "" = a different part; () = every image shows a different part.
        rng: random generator of the draws.
        rounds: number of rounds R.
    """
    weights, part_numbers = np.empty((rounds, len(labels)), np.int64), number_parts(groups, len(labels))
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        parts, part_of_image = np.unique(part_numbers[images], return_inverse=True)
        shares = np.full(len(parts), 1 / len(parts))
        weights[:, images] = rng.multinomial(len(parts), shares, size=rounds)[:, part_of_image]
    return weights


def number_parts(groups: Sequence[str], count: int) -> npt.NDArray[np.intp]:
    """Return the number (N,) of the physical part of each of `count` images, from 0; `groups` as in `draw_parts`."""
    names = [group or f"\0{i}" for i, group in enumerate(groups or [""] * count)]
    return np.unique(names, return_inverse=True)[1].reshape(count)


def average_precisions(scored: Scored, weights: Weights) -> Floats:
    """Return scikit-learn's average precision (R,) for each of R weightings (R, N) of the images."""
    hits, alarms = _cumulative_counts(scored, weights)
    precision = hits / np.maximum(hits + alarms, 1)
    averages: Floats = (np.diff(hits, axis=1, prepend=0) * precision).sum(axis=1) / hits[:, -1]
    return averages


def aurocs(scored: Scored, weights: Weights) -> Floats:
    """Return the area under the ROC curve (R,) for each of R weightings (R, N) of the images; ties count half."""
    hits, alarms = _cumulative_counts(scored, weights)
    steps = np.diff(alarms, axis=1, prepend=0)
    middle = hits - np.diff(hits, axis=1, prepend=0) / 2
    areas: Floats = (steps * middle).sum(axis=1) / (hits[:, -1] * alarms[:, -1])
    return areas


def recalls_at_fpr(scored: Scored, weights: Weights, max_fpr: float) -> Floats:
    """Return the highest recall (R,) at a false positive rate <= `max_fpr`, for each of R weightings (R, N)."""
    hits, alarms = _cumulative_counts(scored, weights)
    recalls: Floats = np.where(alarms <= max_fpr * alarms[:, -1:], hits, 0).max(axis=1) / hits[:, -1]
    return recalls


def _cumulative_counts(scored: Scored, weights: Weights) -> tuple[Weights, Weights]:
    """Return the true and false positives (R, K) at each of K thresholds, in descending order of the threshold."""
    order = np.argsort(-scored.logits, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scored.logits[order]) != 0, True))  # last index of each group of ties
    ranked, positive = weights[:, order], scored.labels[order] == 1
    hits, alarms = np.cumsum(ranked * positive, axis=1), np.cumsum(ranked * ~positive, axis=1)
    return hits[:, last], alarms[:, last]


def best_f1_threshold(logits: Floats, labels: Labels) -> float:
    """Return the threshold with the best F1; needs at least one positive. Scores equal to it count as defects."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(labels, logits)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return float(thresholds[np.argmax(f1[:-1])])


def honest_threshold(logits: Floats, labels: Labels, max_fpr: float) -> tuple[float | None, str]:
    """Return a threshold chosen on the validation part alone, and a sentence on how it was chosen.

    With validation positives it is the threshold with the best F1. Without, it is the lowest threshold that at most
    `max_fpr` of the negatives reach. Without negatives it is None.
    """
    negatives = logits[labels == 0]
    if not len(negatives):
        return None, "no validation negatives: no honest threshold, precision and recall"
    if labels.any():
        return best_f1_threshold(logits, labels), f"threshold: best F1 on {len(labels)} validation images"
    allowed = math.floor(max_fpr * len(negatives) + 1e-9)
    threshold = np.nextafter(np.sort(negatives)[len(negatives) - 1 - allowed], np.inf)
    above = int((negatives >= threshold).sum())
    return float(threshold), f"threshold: {above} of {len(negatives)} validation negatives score above it"


def operating_point(logits: Floats, labels: Labels, threshold: float, prefix: str) -> dict[str, float]:
    """Return precision, recall and F1, where logits of at least `threshold` are predicted as defects.

    Precision is 0 if no image is predicted as a defect.
    """
    predicted = logits >= threshold
    hits = float((predicted & (labels == 1)).sum())
    precision = hits / max(predicted.sum(), 1)
    recall = hits / (labels == 1).sum()
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {
        f"{prefix}threshold": threshold,
        f"{prefix}precision": float(precision),
        f"{prefix}recall": float(recall),
        f"{prefix}f1": f1,
    }
