"""Did it help? The difference of two ways to train, paired over seeds and test images, with its interval."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

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
"""Of images (N,) with each of R weightings (R, N): R values."""


_Part = tuple[bytes, tuple[str, ...]]
"""What tells one test part from another."""


class Difference(NamedTuple):
    """Mean over seeds of a metric's rise, and its 95 % interval."""

    mean: float
    low: float
    high: float

    def words(self) -> str:
        """What may be said of it."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference that can be told from chance"


FALSE_ALARMS = 0.05
"""Share of the test negatives, at most, that may be called defects where recalls are compared."""


def recalls(scored: Scored, weights: Weights) -> Floats:
    """Recall with at most `FALSE_ALARMS`.

    The recall at the best F1 of the test part would be no measure of a difference: a classifier that knows nothing has
    its best F1 where it calls everything a defect, and recalls all.
    """
    return recalls_at_fpr(scored, weights, FALSE_ALARMS)


METRICS: dict[str, Metric] = {"AP": average_precisions, f"recall at {FALSE_ALARMS:.0%} false alarms": recalls}
"""What a verdict is about."""


def paired_difference(
    ours: Sequence[Scored],
    theirs: Sequence[Scored],
    metric: Metric = average_precisions,
    seed: int = 0,
    rounds: int = BOOTSTRAP_ROUNDS,
) -> Difference:
    """How much higher the metric is of `ours` than of `theirs`, and how sure that is.

    Two things could have come out otherwise: which parts were photographed for the test, and how the trainings went.
    The first is the spread of the bootstrap over test parts, in which both classifiers of a pair are measured on the
    same draw; the second that of the pairs' own differences. The half-widths of their 95 % intervals, of Student's t
    for the seeds and of the normal distribution for the test parts, are added as squares. (A bootstrap of four seeds is
    far too narrow, and Welch's and Satterthwaite's degrees of freedom miss in 12 % of cases with two seeds.) With one
    seed it is the percentile interval over test parts.

    Args:
        ours: one a seed.
        theirs: the same seeds in the same order; the test images of a pair are the same.
        metric: of `METRICS`, for example.
        seed: of the bootstrap.
        rounds: of the bootstrap.

    Raises:
        ValueError: the pairs do not match.
    """
    if len(ours) != len(theirs) or any(
        not np.array_equal(a.labels, b.labels) for a, b in zip(ours, theirs, strict=False)
    ):
        raise ValueError("both sides need the same seeds with the same test images")
    pairs = list(zip(ours, theirs, strict=True))
    weights = _draw(ours, np.random.default_rng(seed), rounds)
    rises = np.array([_rises(*pair, metric, np.ones((1, len(pair[0].labels)), np.int64))[0] for pair in pairs])
    drawn = np.mean([_rises(*pair, metric, weights[_part(pair[0])]) for pair in pairs], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(pairs) == 1 else _student(rises, float(drawn.std()))
    return Difference(float(rises.mean()), float(low), float(high))


def _draw(scored: Sequence[Scored], rng: np.random.Generator, rounds: int) -> dict[_Part, Weights]:
    """The rounds of every test part; seeds that share one share its draws."""
    parts = {_part(one): one for one in scored}
    return {part: draw_parts(one.labels, one.groups, rng, rounds) for part, one in parts.items()}


def _student(rises: Floats, spread: float) -> tuple[float, float]:
    """The interval around the mean of two or more rises; `spread` is that of their mean over test parts."""
    count = len(rises)
    seeds = t.ppf(0.975, count - 1) * (rises.var(ddof=1) / count) ** 0.5
    reach = float(np.hypot(seeds, norm.ppf(0.975) * spread))
    return float(rises.mean()) - reach, float(rises.mean()) + reach


def _part(scored: Scored) -> _Part:
    return scored.labels.tobytes(), tuple(scored.groups)


def _rises(ours: Scored, theirs: Scored, metric: Metric, weights: Weights) -> Floats:
    return metric(ours, weights) - metric(theirs, weights)


def paired_test(question: str, pairs: Sequence[tuple[Scored, Scored]]) -> str:
    """One line a metric: "zero shot, In&Out against MemSeg: AP +0.034 (95 % -0.010 .. +0.080, 4 seeds): ...".

    Args:
        question: what stands before the colon.
        pairs: ours and theirs, one a seed.
    """
    lines = []
    for name, metric in METRICS.items():
        found = paired_difference([a for a, _ in pairs], [b for _, b in pairs], metric)
        seeds = f"{len(pairs)} seeds" if len(pairs) > 1 else "1 seed, so without the spread of training"
        interval = f"95 % {found.low:+.3f} .. {found.high:+.3f}, {seeds}"
        lines.append(f"- {question}: {name} {found.mean:+.3f} ({interval}): {found.words()}")
    return "\n".join(lines)
