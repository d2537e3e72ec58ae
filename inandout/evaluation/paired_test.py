"""Paired comparison of two training methods over seeds and test images, with confidence intervals."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

from inandout.evaluation.metrics import (
    BOOTSTRAP_ROUNDS,
    Floats,
    Scored,
    Weights,
    average_precisions,
    draw_parts,
    recalls_at_fpr,
)

Metric = Callable[[Scored, Weights], Floats]
"""Maps the scores of N images and R weightings (R, N) to R values."""


_TestKey = tuple[bytes, tuple[str, ...]]
"""Identifies a test part by its labels and groups."""


class Difference(NamedTuple):
    """Mean difference of a metric over seeds, and its 95 % interval."""

    mean: float
    low: float
    high: float

    def verdict(self) -> str:
        """Return "better", "worse" or "no significant difference"."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no significant difference"


FALSE_ALARMS = 0.05
"""Maximum false positive rate at which recalls are compared."""


def recalls(scored: Scored, weights: Weights) -> Floats:
    """Return the recall (R,) at a false positive rate of at most `FALSE_ALARMS`, for each of R weightings (R, N).

    The recall at the best F1 does not measure a difference: an uninformative classifier has its best F1 where it
    predicts every image as a defect, with recall 1.
    """
    return recalls_at_fpr(scored, weights, FALSE_ALARMS)


METRICS: dict[str, Metric] = {"AP": average_precisions, f"recall at {FALSE_ALARMS:.0%} false alarms": recalls}
"""Metrics compared by `paired_test`."""


def paired_difference(
    ours: Sequence[Scored],
    theirs: Sequence[Scored],
    metric: Metric = average_precisions,
    seed: int = 0,
    rounds: int = BOOTSTRAP_ROUNDS,
) -> Difference:
    """Return the mean difference of a metric between `ours` and `theirs`, and its 95 % interval.

    The interval covers two sources of variance: the sample of test parts and the random training runs. The first is
    the deviation of a bootstrap over test parts that draws the same parts for both classifiers of a pair. The second is
    the deviation of the mean of the pairwise differences. The half-widths of their 95 % intervals, from the normal
    distribution for the test parts and from Student's t for the seeds, are added in quadrature. A bootstrap of four
    seeds is far too narrow, and with two seeds Welch-Satterthwaite degrees of freedom miss in 12 % of the cases. With
    one seed, it is the percentile interval over test parts.

    Args:
        ours: scores of one classifier per seed.
        theirs: scores for the same seeds in the same order; both classifiers of a pair have the same test images.
        metric: see `METRICS`.
        seed: seed of the bootstrap.
        rounds: rounds of the bootstrap.

    Raises:
        ValueError: the pairs do not match.
    """
    if len(ours) != len(theirs) or any(
        not np.array_equal(a.labels, b.labels) for a, b in zip(ours, theirs, strict=False)
    ):
        raise ValueError("both sides need the same seeds with the same test images")
    pairs = list(zip(ours, theirs, strict=True))
    weights = _draw_weights(ours, np.random.default_rng(seed), rounds)
    differences = np.array(
        [_differences(*pair, metric, np.ones((1, len(pair[0].labels)), np.int64))[0] for pair in pairs]
    )
    resampled = np.mean([_differences(*pair, metric, weights[_test_key(pair[0])]) for pair in pairs], axis=0)
    if len(pairs) == 1:
        low, high = np.quantile(resampled, [0.025, 0.975])
    else:
        low, high = _student_interval(differences, float(resampled.std()))
    return Difference(float(differences.mean()), float(low), float(high))


def _draw_weights(scored: Sequence[Scored], rng: np.random.Generator, rounds: int) -> dict[_TestKey, Weights]:
    """Return bootstrap weights for every test part; seeds with the same test part share its draws."""
    by_test = {_test_key(scores): scores for scores in scored}
    return {key: draw_parts(scores.labels, scores.groups, rng, rounds) for key, scores in by_test.items()}


def _student_interval(differences: Floats, spread: float) -> tuple[float, float]:
    """Return the 95 % interval of the mean of two or more differences; `spread` is its deviation over test parts."""
    count = len(differences)
    seed_margin = stdtrit(count - 1, 0.975) * (differences.var(ddof=1) / count) ** 0.5
    margin = float(np.hypot(seed_margin, ndtri(0.975) * spread))
    return float(differences.mean()) - margin, float(differences.mean()) + margin


def _test_key(scored: Scored) -> _TestKey:
    return scored.labels.tobytes(), tuple(scored.groups)


def _differences(ours: Scored, theirs: Scored, metric: Metric, weights: Weights) -> Floats:
    return metric(ours, weights) - metric(theirs, weights)


def paired_test(question: str, pairs: Sequence[tuple[Scored, Scored]]) -> str:
    """Return one line per metric: "zero shot, In&Out against MemSeg: AP +0.034 (95 % -0.010 .. +0.080, 4 seeds): ...".

    Args:
        question: text before the colon.
        pairs: scores of ours and theirs, one pair per seed.
    """
    lines = []
    for name, metric in METRICS.items():
        difference = paired_difference([a for a, _ in pairs], [b for _, b in pairs], metric)
        seeds = f"{len(pairs)} seeds" if len(pairs) > 1 else "1 seed, so without training variance"
        interval = f"95 % {difference.low:+.3f} .. {difference.high:+.3f}, {seeds}"
        lines.append(f"- {question}: {name} {difference.mean:+.3f} ({interval}): {difference.verdict()}")
    return "\n".join(lines)
