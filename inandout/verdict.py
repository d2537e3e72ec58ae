"""Did it help? The difference of two ways to train, paired over seeds and test pictures, with its interval."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score
from tqdm import tqdm

from inandout.metrics import BOOTSTRAP_ROUNDS, Floats, Labels, best_f1_threshold, operating_point

Metric = Callable[[Labels, Floats], float]


class Scored(NamedTuple):
    """The test part of one trained classifier."""

    labels: Labels
    """(N,) of 0 and 1."""
    logits: Floats
    """(N,)."""


class Difference(NamedTuple):
    """Mean over seeds of a metric's rise, and the 95 % percentile interval of the bootstrap."""

    mean: float
    low: float
    high: float

    def words(self) -> str:
        """What may be said of it."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference that can be told from chance"


def oracle_recall(labels: Labels, logits: Floats) -> float:
    """Recall at the threshold with the best F1 on the same pictures (the paper's protocol)."""
    return operating_point(logits, labels, best_f1_threshold(logits, labels), "")["recall"]


METRICS: dict[str, Metric] = {"AP": average_precision_score, "recall (oracle)": oracle_recall}
"""What a verdict is about."""


def paired_difference(
    ours: Sequence[Scored], theirs: Sequence[Scored], metric: Metric, seed: int = 0, rounds: int = BOOTSTRAP_ROUNDS
) -> Difference:
    """How much higher the metric is of `ours` than of `theirs`.

    A round of the bootstrap draws seeds with replacement, and for each of them test pictures, positives and negatives
    apart; both classifiers of a pair are measured on the same draw, and pairs with the same test part share it.

    Args:
        ours: one a seed.
        theirs: the same seeds in the same order; the test pictures of a pair are the same.
        metric: of labels and logits.
        seed: of the bootstrap.
        rounds: of the bootstrap.

    Raises:
        ValueError: the pairs do not match.
    """
    if len(ours) != len(theirs) or any(
        not np.array_equal(a.labels, b.labels) for a, b in zip(ours, theirs, strict=False)
    ):
        raise ValueError("both sides need the same seeds with the same test pictures")
    rng = np.random.default_rng(seed)
    pairs = list(zip(ours, theirs, strict=True))
    whole = [_rise(a, b, np.arange(len(a.labels)), metric) for a, b in pairs]
    parts = {a.labels.tobytes(): a.labels for a, _ in pairs}
    drawn = []
    for _ in tqdm(range(rounds), "bootstrap", leave=False, disable=None):
        chosen = rng.integers(len(pairs), size=len(pairs))
        draws = {part: _draw(labels, rng) for part, labels in parts.items()}
        drawn.append(np.mean([_rise(a, b, draws[a.labels.tobytes()], metric) for a, b in (pairs[i] for i in chosen)]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Difference(float(np.mean(whole)), float(low), float(high))


def _rise(ours: Scored, theirs: Scored, draw: npt.NDArray[np.intp], metric: Metric) -> float:
    return metric(ours.labels[draw], ours.logits[draw]) - metric(theirs.labels[draw], theirs.logits[draw])


def _draw(labels: Labels, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    return np.concatenate(
        [rng.choice(part, len(part)) for part in (np.flatnonzero(labels == value) for value in (0, 1))]
    )


def verdict(question: str, pairs: Sequence[tuple[Scored, Scored]]) -> str:
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
