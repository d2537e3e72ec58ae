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
    number_parts,
    recalls_at_fpr,
)

Metric = Callable[[Scored, Weights], Floats]
"""Maps the scores of N images and R weightings (R, N) to R values."""


Repeat = tuple[int, str]
"""Seed and fold of a pair of classifiers."""


_TestKey = tuple[bytes, tuple[str, ...], str]
"""Identifies a test part by its labels, groups and fold."""


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

    def text(self, note: str = "") -> str:
        """Return "+0.034 (95 % -0.010 .. +0.080)", with `note` at the end of the parentheses."""
        return f"{self.mean:+.3f} (95 % {self.low:+.3f} .. {self.high:+.3f}{note})"


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


def mean_by_seed(values: Floats, runs: Sequence[Repeat]) -> Floats:
    """Return the mean (S, ...) over the folds of each seed, of one value (N, ...) for each seed and fold of `runs`."""
    seeds = np.array([seed for seed, _ in runs])
    return np.stack([values[seeds == seed].mean(axis=0) for seed in np.unique(seeds)])


def paired_difference(
    ours: Sequence[Scored],
    theirs: Sequence[Scored],
    metric: Metric = average_precisions,
    seed: int = 0,
    rounds: int = BOOTSTRAP_ROUNDS,
    *,
    runs: Sequence[Repeat] | None = None,
) -> Difference:
    """Return the mean difference of a metric between `ours` and `theirs`, and its 95 % interval.

    The interval covers two sources of variance: the sample of test parts and the random training runs. The first is
    the deviation of a bootstrap over test parts that draws the same parts for both classifiers of a pair. The second is
    the deviation of the mean of the pairwise differences. The half-widths of their 95 % intervals, from the normal
    distribution for the test parts and from Student's t for the seeds, are added in quadrature. A bootstrap of four
    seeds is far too narrow, and with two seeds Welch-Satterthwaite degrees of freedom miss in 12 % of the cases. With
    one seed, it is the percentile interval over test parts.

    In cross-validation a seed has one pair per fold. The difference of a seed is the mean over its folds, and the
    bootstrap draws parts within each fold, so the interval counts all parts. The training sets of the folds overlap,
    but the test parts do not: given the trained classifiers, the scores of different parts are independent, and the
    variances of the folds add up. The interval therefore holds for these training sets, as with a single split. It
    does not include the variance of drawing other training sets; K folds allow no unbiased estimate of it (Bengio
    and Grandvalet 2004).

    Args:
        ours: scores of one classifier per seed, or per seed and fold.
        theirs: scores for the same seeds in the same order; both classifiers of a pair have the same test images.
        metric: see `METRICS`.
        seed: seed of the bootstrap.
        rounds: rounds of the bootstrap.
        runs: seed and fold of each pair; None = every pair has its own seed.

    Raises:
        ValueError: the pairs do not match.
    """
    if len(ours) != len(theirs) or any(
        not np.array_equal(a.labels, b.labels) for a, b in zip(ours, theirs, strict=False)
    ):
        raise ValueError("both sides need the same seeds with the same test images")
    pairs = list(zip(ours, theirs, strict=True))
    runs = [(number, "") for number in range(len(pairs))] if runs is None else runs
    weights = draw_weights(ours, runs, np.random.default_rng(seed), rounds)
    differences = np.array(
        [_differences(*pair, metric, np.ones((1, len(pair[0].labels)), np.int64))[0] for pair in pairs]
    )
    differences = mean_by_seed(differences, runs)
    resampled = np.mean(
        [_differences(*pair, metric, drawn) for pair, drawn in zip(pairs, weights, strict=True)], axis=0
    )
    if len(differences) == 1:
        low, high = np.quantile(resampled, [0.025, 0.975])
    else:
        low, high = _student_interval(differences, float(resampled.std()))
    return Difference(float(differences.mean()), float(low), float(high))


def draw_weights(
    scored: Sequence[Scored], runs: Sequence[Repeat], rng: np.random.Generator, rounds: int
) -> list[Weights]:
    """Return bootstrap weights of each test part; seeds with the same test part share its draws, folds never do."""
    keys = [_test_key(scores, fold) for scores, (_, fold) in zip(scored, runs, strict=True)]
    by_test = dict(zip(keys, scored, strict=True))
    drawn = {key: draw_parts(scores.labels, scores.groups, rng, rounds) for key, scores in by_test.items()}
    return [drawn[key] for key in keys]


def _student_interval(differences: Floats, spread: float) -> tuple[float, float]:
    """Return the 95 % interval of the mean of two or more differences; `spread` is its deviation over test parts."""
    count = len(differences)
    seed_margin = stdtrit(count - 1, 0.975) * (differences.var(ddof=1) / count) ** 0.5
    margin = float(np.hypot(seed_margin, ndtri(0.975) * spread))
    return float(differences.mean()) - margin, float(differences.mean()) + margin


def _test_key(scored: Scored, fold: str) -> _TestKey:
    return scored.labels.tobytes(), tuple(scored.groups), fold


def _differences(ours: Scored, theirs: Scored, metric: Metric, weights: Weights) -> Floats:
    return metric(ours, weights) - metric(theirs, weights)


class Comparison(NamedTuple):
    """Differences of two sources."""

    question: str
    """For example "zero shot, In&Out against MemSeg"."""
    seeds: int
    folds: int
    differences: dict[str, Difference]
    """Keys of `METRICS` to differences."""
    over_images: dict[str, Difference]
    """The same with an interval over images instead of parts, if parts have several images. It holds for other images
    of these parts only, for example other cells of these solar modules; the other interval also for other parts."""

    def lines(self) -> str:
        """Return a line per metric: "- zero shot, A against B: AP +0.034 (95 % -0.010 .. +0.080, 4 seeds): ..."."""
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else "1 seed, so without training variance"
        seeds += f", {self.folds} folds" * (self.folds > 1)
        return "\n".join(
            f"- {self.question}: {name} {found.text(f', {seeds}')}: {found.verdict()}{self._on_images(name)}"
            for name, found in self.differences.items()
        )

    def _on_images(self, name: str) -> str:
        if name not in self.over_images:
            return ""
        found = self.over_images[name]
        return f"; on other images of the same parts {found.low:+.3f} .. {found.high:+.3f}: {found.verdict()}"


def paired_test(
    question: str, pairs: Sequence[tuple[Scored, Scored]], runs: Sequence[Repeat] | None = None
) -> Comparison:
    """Return the paired differences of all `METRICS`.

    Args:
        question: names both sides.
        pairs: scores of ours and theirs, one pair per seed, or per seed and fold.
        runs: seed and fold of each pair; None = every pair has its own seed.
    """
    count = len({seed for seed, _ in runs} if runs else pairs)
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    differences = _intervals(ours, theirs, runs)
    several = any(len(np.unique(number_parts(each.groups, len(each.labels)))) < len(each.labels) for each in ours)
    over_images = _intervals(_without_groups(ours), _without_groups(theirs), runs) if several else {}
    return Comparison(question, count, len(pairs) // count, differences, over_images)


def _intervals(
    ours: Sequence[Scored], theirs: Sequence[Scored], runs: Sequence[Repeat] | None
) -> dict[str, Difference]:
    return {name: paired_difference(ours, theirs, metric, runs=runs) for name, metric in METRICS.items()}


def _without_groups(scores: Sequence[Scored]) -> list[Scored]:
    """Return scores whose images count as different parts."""
    return [each._replace(groups=()) for each in scores]
