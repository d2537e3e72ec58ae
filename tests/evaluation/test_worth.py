import numpy as np
import pytest

from inandout.evaluation.metrics import Scored
from inandout.evaluation.worth import Worth, _aps_by_seed, _invert, worth_in_real_defects

LABELS = np.array([1] * 60 + [0] * 180, np.int64)
RUNS = [(seed, "") for seed in range(4)]
STRENGTHS = {1: 0.2, 5: 1.0, 20: 1.8, 50: 2.4}


def scored(strength: float) -> list[Scored]:
    """Return scores of four seeds; the noise of the parts is shared, as for one test part."""
    parts = np.random.default_rng(0).normal(size=len(LABELS))
    return [
        Scored(LABELS, parts + 0.1 * np.random.default_rng(seed).normal(size=len(LABELS)) + strength * LABELS)
        for seed, _ in RUNS
    ]


CURVE = {number: scored(strength) for number, strength in STRENGTHS.items()}


@pytest.mark.parametrize(("strength", "expected"), [(1.0, 5), (1.8, 20), (1.4, 11)])
def test_a_source_is_worth_the_number_on_the_curve(strength: float, expected: float) -> None:
    found = worth_in_real_defects(CURVE, scored(strength), RUNS, rounds=100)
    assert found.number == pytest.approx(expected, rel=0.25)
    assert found.low <= found.number <= found.high
    assert found.high - found.low < 15, "shared parts cancel out"


def test_values_outside_the_curve_are_bounds() -> None:
    weak = worth_in_real_defects(CURVE, scored(0.0), RUNS, rounds=50)
    assert weak.number == 0
    assert worth_in_real_defects(CURVE, scored(9.0), RUNS, rounds=50) == (np.inf, np.inf, np.inf)
    assert Worth(0, 0, 7.34).sentence([1, 20]) == "fewer than 1 (95 % fewer than 1 .. 7.3)"
    assert Worth(7, 2, np.inf).sentence([1, 20]) == "7.0 (95 % 2.0 .. more than 20)"


def test_a_curve_that_falls_is_made_monotone() -> None:
    assert _invert([1, 5, 10], np.array([0.5, 0.4, 0.8, 0.625])) == pytest.approx(7.5)
    assert _invert([1, 5, 10], np.array([0.5, 0.4, 0.8, 0.45])) == 1


def test_folds_of_a_seed_are_averaged() -> None:
    runs = [(seed, fold) for seed in (0, 1) for fold in ("1/2", "2/2")]
    drawn = [np.ones((1, len(LABELS)), np.int64)] * 4
    each = np.asarray(_aps_by_seed(scored(1.4), RUNS, drawn))
    assert np.allclose(_aps_by_seed(scored(1.4), runs, drawn), [each[:2].mean(axis=0), each[2:].mean(axis=0)])
