import numpy as np
import pytest

from inandout.classifier.frequency_sampler import FrequencySampler


def labels(negatives: int, positives: int) -> np.ndarray:
    return np.array([0] * negatives + [1] * positives)


@pytest.mark.parametrize(("negatives", "positives"), [(50, 7), (50, 50), (50, 49), (5, 12), (1, 3)])
def test_an_epoch_contains_every_positive_once_and_as_many_negatives(negatives: int, positives: int) -> None:
    sampler = FrequencySampler(labels(negatives, positives), 0)
    for _ in range(5):
        epoch = sampler.epoch()
        assert sorted(epoch[epoch >= negatives]) == list(range(negatives, negatives + positives))
        assert (epoch < negatives).sum() == positives


def test_negatives_are_used_equally_often() -> None:
    sampler = FrequencySampler(labels(60, 20), 0)
    for epoch in range(1, 31):
        indices = sampler.epoch()
        negatives = indices[indices < 60]
        assert len(set(negatives)) == 20
        if epoch == 3:
            assert sampler.used.max() <= 2, "recently used negatives must have a low probability"
    assert sampler.used.sum() == 600
    assert sampler.used.max() - sampler.used.min() <= 3


def test_probabilities_follow_the_published_formula() -> None:
    sampler = FrequencySampler(labels(4, 1), 0)
    sampler.used = np.array([0, 1, 1, 2])
    unused = np.array([1.0, 0.5, 0.5, 0.0])
    expected = (unused - 0.5 + 1) ** (4 * np.log(4))
    assert sampler._probabilities() == pytest.approx(expected / expected.sum())


def test_a_restored_sampler_continues_the_same_sequence() -> None:
    first, second = (FrequencySampler(labels(30, 6), seed) for seed in (0, 99))
    first.epoch()
    second.restore(first.state())
    assert np.array_equal(first.epoch(), second.epoch())
    assert np.array_equal(first.epoch(), second.epoch())


def test_every_epoch_negatives_are_added_and_never_sampled() -> None:
    every_epoch = np.zeros(67, bool)
    every_epoch[[3, 60, 61]] = True
    sampler = FrequencySampler(labels(62, 5), 0, every_epoch)
    for _ in range(30):
        epoch = sampler.epoch()
        assert len(epoch) == len(set(epoch)) == 5 + 5 + 3
        assert {3, 60, 61} <= set(epoch)


def test_an_empty_every_epoch_changes_nothing() -> None:
    first, second = FrequencySampler(labels(30, 6), 0), FrequencySampler(labels(30, 6), 0, np.zeros(36, bool))
    assert all(np.array_equal(first.epoch(), second.epoch()) for _ in range(3))


def test_a_single_class_raises_an_error() -> None:
    with pytest.raises(ValueError, match="0 positives"):
        FrequencySampler(labels(5, 0), 0)
