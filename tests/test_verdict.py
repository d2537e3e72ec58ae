import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from inandout.verdict import METRICS, Scored, oracle_recall, paired_difference, verdict


def scored(seed: int, strength: float, positives: int = 40, negatives: int = 120) -> Scored:
    """Positives score `strength` standard deviations higher than negatives; the noise is that of the seed."""
    labels = np.array([1] * positives + [0] * negatives, np.int64)
    return Scored(labels, np.random.default_rng(seed).normal(size=len(labels)) + strength * labels)


def test_a_clear_rise_is_called_better_and_the_other_way_round_worse() -> None:
    weak, strong = ([scored(seed, strength) for seed in range(4)] for strength in (0.5, 2.0))
    rise = paired_difference(strong, weak, average_precision_score, rounds=200)
    assert 0 < rise.low < rise.mean < rise.high
    assert rise.words() == "better"
    fall = paired_difference(weak, strong, average_precision_score, rounds=200)
    assert fall.mean == pytest.approx(-rise.mean)
    assert fall.words() == "worse"


def test_the_mean_is_that_of_the_seeds_and_nothing_else() -> None:
    ours, theirs = [scored(0, 1.0), scored(1, 2.0)], [scored(2, 1.0), scored(3, 1.0)]
    expected = np.mean(
        [average_precision_score(*a) - average_precision_score(*b) for a, b in zip(ours, theirs, strict=True)]
    )
    assert paired_difference(ours, theirs, average_precision_score, rounds=10).mean == pytest.approx(expected)


def test_without_a_difference_chance_is_named_in_most_cases() -> None:
    said = [
        paired_difference(
            [scored(8 * n + i, 1.0) for i in range(4)], [scored(8 * n + 4 + i, 1.0) for i in range(4)],
            average_precision_score, rounds=100,
        ).words()
        for n in range(20)
    ]  # fmt: skip
    assert said.count("no difference that can be told from chance") >= 15


def test_pairing_makes_the_interval_narrower_than_two_draws_would() -> None:
    noisy = scored(0, 1.0)
    shifted = Scored(noisy.labels, noisy.logits + 0.01 * np.random.default_rng(1).normal(size=len(noisy.labels)))
    found = paired_difference([shifted], [noisy], average_precision_score, rounds=200)
    assert found.high - found.low < 0.02


def test_the_same_seed_gives_the_same_interval() -> None:
    ours, theirs = [scored(0, 1.5)], [scored(1, 1.0)]
    assert paired_difference(ours, theirs, oracle_recall, rounds=50) == paired_difference(
        ours, theirs, oracle_recall, rounds=50
    )


def test_other_test_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="same test pictures"):
        paired_difference([scored(0, 1.0)], [scored(0, 1.0, positives=39)], average_precision_score)
    with pytest.raises(ValueError, match="same seeds"):
        paired_difference([scored(0, 1.0)], [], average_precision_score)


def test_a_verdict_names_both_sides_the_interval_and_the_seeds() -> None:
    text = verdict("zero shot, In&Out against MemSeg", [(scored(0, 2.0), scored(0, 0.5))])
    assert text.startswith("- zero shot, In&Out against MemSeg: AP +0.")
    assert "1 seed, so without the spread of training" in text
    assert text.count("\n") == len(METRICS) - 1
