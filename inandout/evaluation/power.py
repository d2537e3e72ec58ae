"""Power of a comparison: the smallest difference of AP that `paired_difference` finds, by simulation."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

from inandout.evaluation.metrics import Floats, Scored, average_precisions

POWER = 0.8
"""Share of comparisons in which the difference is found, with a two-sided error of 5 %."""
_DRAWS = 400


class Assumptions(NamedTuple):
    """What the power depends on besides the numbers of parts and seeds.

    Scores are binormal: normal with the same variance for good and defective parts.
    """

    ap: float = 0.7
    """Expected AP of both sources, 0..1, above the share of positives."""
    correlation: float = 0.7
    """Correlation of the scores of both sources over parts of one label, 0..1."""
    seed_spread: float = 0.03
    """Standard deviation of AP over seeds."""


def detectable_difference(
    positives: int, negatives: int, seeds: int, assumed: Assumptions, images_per_part: float = 1.0, seed: int = 0
) -> float:
    """Return the difference of AP that is found with a probability of `POWER`.

    Args:
        positives: defective images in the test part, 1 or more; with cross-validation, in all folds.
        negatives: good images, 1 or more.
        seeds: training runs of each source, 1 or more.
        assumed: see `Assumptions`.
        images_per_part: number of images with the same score, 1 or more; multiplies the variance over images.
        seed: seed of the simulation.
    """
    parts = float(np.std(simulated_differences(positives, negatives, assumed, _DRAWS, seed))) * images_per_part**0.5
    training = assumed.seed_spread * (2 / seeds) ** 0.5  # of the mean difference
    margin = norm.ppf(0.975) * parts
    if seeds > 1:
        margin = np.hypot(margin, t.ppf(0.975, seeds - 1) * training)
    return float(margin + norm.ppf(POWER) * np.hypot(parts, training))


def simulated_differences(positives: int, negatives: int, assumed: Assumptions, draws: int, seed: int) -> Floats:
    """Return the differences of AP (draws,) of two equally good classifiers on random parts."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [positives, negatives])
    shift = separation(assumed.ap, positives / (positives + negatives)) * labels
    shared, own = assumed.correlation**0.5, (1 - assumed.correlation) ** 0.5
    uniform = np.ones((1, len(labels)), np.int64)
    differences = np.empty(draws)
    for draw in range(draws):
        common = shared * rng.normal(size=len(labels)) + shift
        ours, theirs = (Scored(labels, common + own * rng.normal(size=len(labels))) for _ in range(2))
        differences[draw] = average_precisions(ours, uniform)[0] - average_precisions(theirs, uniform)[0]
    return differences


def separation(ap: float, prevalence: float) -> float:
    """Return the distance of the means of binormal scores, in standard deviations, that has this AP.

    Args:
        ap: 0..1; at most `prevalence` gives 0.
        prevalence: share of positives, 0..1.
    """
    recall = np.linspace(0.0005, 0.9995, 1000)

    def excess(distance: float) -> float:
        alarms = norm.sf(norm.isf(recall) + distance)
        return float(np.mean(prevalence * recall / (prevalence * recall + (1 - prevalence) * alarms))) - ap

    return 0.0 if excess(0) >= 0 else float(brentq(excess, 0, 20))
