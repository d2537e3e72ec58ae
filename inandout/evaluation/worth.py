"""How many real defects a source of synthetic defects is worth, by the learning curve over the number of real ones."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.isotonic import IsotonicRegression

from inandout.evaluation.metrics import BOOTSTRAP_ROUNDS, Floats, Scored, average_precisions
from inandout.evaluation.paired_test import Repeat, draw_weights, mean_by_seed


class Worth(NamedTuple):
    """Number of real defects that give the same AP, with its 95 % interval.

    0 = fewer than the first point of the curve; infinity = more than the last.
    """

    number: float
    low: float
    high: float

    def sentence(self, numbers: Sequence[int]) -> str:
        """Return "7.3 (95 % 2.0 .. more than 20)"; `numbers` are those of the curve."""

        def text(value: float) -> str:
            if value == 0:
                return f"fewer than {min(numbers)}"
            return f"more than {max(numbers)}" if np.isinf(value) else f"{value:.1f}"

        return f"{text(self.number)} (95 % {text(self.low)} .. {text(self.high)})"


def worth_in_real_defects(
    curve: Mapping[int, Sequence[Scored]],
    ours: Sequence[Scored],
    runs: Sequence[Repeat],
    seed: int = 0,
    rounds: int = BOOTSTRAP_ROUNDS,
) -> Worth:
    """Invert the learning curve at the AP of a source.

    The curve is the mean AP over seeds, made monotone by isotonic regression and linear between its points. The
    interval is a bootstrap that draws seeds and test parts, the same ones for the curve and the source. It is rather
    narrow for few seeds.

    Args:
        curve: number of real defects to the scores of the classifiers trained on that many, one per run.
        ours: scores of the classifiers to be valued, one per run.
        runs: seed and fold of the classifiers; all scores of a run have the same test part.
        seed: seed of the bootstrap.
        rounds: rounds of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    weights = draw_weights(ours, runs, rng, rounds)
    numbers = sorted(curve)
    every = np.stack([_aps_by_seed(side, runs, weights) for side in (*(curve[number] for number in numbers), ours)])
    draws = rng.integers(every.shape[1], size=(rounds, every.shape[1]))
    found = [_invert(numbers, every[:, :, 0].mean(axis=1))]
    found += [_invert(numbers, every[:, draw, round_].mean(axis=1)) for round_, draw in enumerate(draws, start=1)]
    low, high = np.quantile(found[1:], [0.025, 0.975], method="nearest")
    return Worth(found[0], float(low), float(high))


def _aps_by_seed(scores: Sequence[Scored], runs: Sequence[Repeat], weights: Sequence[np.ndarray]) -> Floats:
    """Return AP (S, 1 + R) by seed, the mean over folds: of the test part, then of each of R bootstrap draws."""
    aps = np.stack(
        [
            average_precisions(scored, np.concatenate([np.ones((1, len(scored.labels)), np.int64), drawn]))
            for scored, drawn in zip(scores, weights, strict=True)
        ]
    )
    return mean_by_seed(aps, runs)


def _invert(numbers: Sequence[int], aps: Floats) -> float:
    """Return the smallest number with the last AP of `aps` (K + 1,) on the monotone curve through the first K."""
    curve = IsotonicRegression().fit_transform(numbers, aps[:-1])
    wanted = aps[-1]
    if wanted < curve[0]:
        return 0.0
    if wanted > curve[-1]:
        return float("inf")
    right = int(np.searchsorted(curve, wanted))
    if right == 0 or curve[right] == wanted:
        return float(numbers[right])
    share = (wanted - curve[right - 1]) / (curve[right] - curve[right - 1])
    return float(numbers[right - 1] + share * (numbers[right] - numbers[right - 1]))
