from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.linalg import sqrtm

from inandout.errors import InputError
from inandout.evaluation.distances import FEWEST, frechet_distance, kernel_distance


def draw(seed: int, count: int = 40, width: int = 8, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (count, width)).astype(np.float32)


def exactly(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return points whose sample mean and covariance are exactly these."""
    raw = np.random.default_rng(seed).normal(size=(count, len(mean)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_the_kernel_distance_between_samples_of_one_distribution_is_zero_on_average() -> None:
    values = np.array([kernel_distance(draw(2 * i), draw(2 * i + 1), 0).mean for i in range(60)])
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    assert 15 < (values < 0).sum() < 55
    assert error < 0.02, "a larger error would make this test meaningless"


def test_the_kernel_distance_is_the_mean_over_pairs_of_different_images() -> None:
    first, second = draw(0, 12), draw(1, 14, shift=1)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x.astype(float) @ y.astype(float)) / 8 + 1) ** 3

    within = [
        np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (first, second)
    ]
    across = np.mean([kernel(x, y) for x in first for y in second])
    found = kernel_distance(first, second, 0)
    assert found.mean == pytest.approx(sum(within) - 2 * across, abs=4 * found.spread / 10), "100 subsets"


def test_the_spread_approximates_the_deviation_over_samples() -> None:
    distances = [kernel_distance(draw(2 * i, shift=0.5), draw(2 * i + 1), 0) for i in range(60)]
    means = [distance.mean for distance in distances]
    assert np.mean([distance.spread for distance in distances]) == pytest.approx(np.std(means), rel=0.4)


@pytest.mark.parametrize("distance", [lambda a, b: kernel_distance(a, b, 0).mean, frechet_distance])
def test_both_distances_grow_with_the_shift(distance: Callable[..., Any]) -> None:
    values = [distance(draw(0), draw(1, shift=shift)) for shift in (0, 0.5, 1, 2)]
    assert values == sorted(values)
    assert values[3] > 5 * values[1] > 0


def test_the_order_of_images_and_of_sets_does_not_matter() -> None:
    first, second = draw(0, 30), draw(1, 20, shift=0.5)
    shuffled = np.random.default_rng(3).permutation(first)
    assert frechet_distance(shuffled, second) == pytest.approx(frechet_distance(first, second))
    assert frechet_distance(second, first) == pytest.approx(frechet_distance(first, second))
    mean, spread = kernel_distance(first, second, 0)
    for other in (kernel_distance(shuffled, second, 0), kernel_distance(second, first, 0)):
        assert other.mean == pytest.approx(mean, abs=spread / 2), "different subsets of the same sets"


def test_the_seed_determines_the_subsets() -> None:
    first, second = draw(0), draw(1)
    assert kernel_distance(first, second, 5) == kernel_distance(first, second, 5)
    assert kernel_distance(first, second, 5) != kernel_distance(first, second, 6)


@pytest.mark.parametrize(("count1", "count2"), [(50, 70), (50, 3000)])
def test_the_frechet_distance_of_normal_distributions_is_the_closed_form(count1: int, count2: int) -> None:
    rng = np.random.default_rng(0)
    mean1, mean2, root1, root2 = rng.normal(size=4), rng.normal(size=4), *rng.normal(size=(2, 4, 4))
    cov1, cov2 = root1 @ root1.T + np.eye(4), root2 @ root2.T + np.eye(4)
    expected = np.square(mean1 - mean2).sum() + np.trace(cov1 + cov2 - 2 * sqrtm(cov1 @ cov2).real)
    distance = frechet_distance(exactly(mean1, cov1, count1, 1), exactly(mean2, cov2, count2, 2))
    assert distance == pytest.approx(expected, rel=1e-9)


def test_the_frechet_distance_accepts_fewer_images_than_features_and_is_zero_for_equal_sets() -> None:
    few = draw(0, 12, width=300)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(few, draw(1, 12, width=300)) > 100, "the bias named in the docstring"


@pytest.mark.parametrize("distance", [lambda a, b: kernel_distance(a, b, 0), frechet_distance])
def test_sets_that_cannot_be_compared_are_refused(distance: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=f"sets of 40 and {FEWEST - 1} images"):
        distance(draw(0), draw(1, FEWEST - 1))
    with pytest.raises(InputError, match="8 and 9 features"):
        distance(draw(0), draw(1, width=9))
    with pytest.raises(InputError, match="NaN"):
        distance(draw(0), np.full((40, 8), np.nan))
