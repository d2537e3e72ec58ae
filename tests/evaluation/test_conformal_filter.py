import numpy as np
import pytest

from inandout.errors import InputError
from inandout.evaluation.conformal_filter import (
    FilterResult,
    RealFeatures,
    Thresholds,
    apply_thresholds,
    fit_thresholds,
)
from inandout.evaluation.distances import nearest


def cloud(seed: int, count: int, shift: float, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)) + shift * np.eye(width)[0]


REAL = RealFeatures(cloud(0, 60, 0), cloud(1, 12, 9), cloud(2, 40, 0))


def results(features: np.ndarray, real: RealFeatures = REAL, quantile: float = 0.95) -> list[FilterResult]:
    thresholds = fit_thresholds(real, quantile)
    to_positives = nearest(features, real.positives) if len(real.positives) else None
    return apply_thresholds(nearest(features, real.negatives), to_positives, thresholds)


def test_defects_are_kept_and_good_parts_are_not() -> None:
    assert results(cloud(3, 20, 9)).count("kept") >= 18
    assert results(cloud(4, 20, 0)).count("kept") <= 1


def test_outliers_are_unlike_defects_if_real_defects_are_known() -> None:
    outliers = cloud(5, 10, -30)
    assert results(outliers) == ["unlike"] * 10
    assert results(outliers, REAL._replace(positives=np.empty((0, 6)))) == ["kept"] * 10


@pytest.mark.parametrize("quantile", [0.6, 0.9])
def test_each_threshold_rejects_its_quantile_of_new_good_parts(quantile: float) -> None:
    near, far = [], []
    for seed in range(200):
        thresholds = fit_thresholds(REAL._replace(unseen=cloud(1000 + seed, 12, 0)), quantile)
        new = cloud(5000 + seed, 40, 0)
        near.append((nearest(new, REAL.negatives) <= thresholds.negatives).mean())
        assert thresholds.positives is not None
        far.append((nearest(new, REAL.positives) >= thresholds.positives).mean())
    for rejected in (near, far):
        assert quantile - 0.02 < np.mean(rejected) < quantile + 1 / 13 + 0.02, "even with only 12 validation negatives"


def test_an_image_at_a_threshold_is_not_kept() -> None:
    thresholds = Thresholds(1.0, 2.0)
    results = apply_thresholds(np.array([1.0, 1.1, 1.1]), np.array([0.0, 2.0, 1.9]), thresholds)
    assert results == ["good", "unlike", "kept"]


def test_too_few_validation_negatives_are_refused_with_the_required_number() -> None:
    with pytest.raises(InputError, match=r"needs at least 19 good validation parts, but there are 18; raise val_share"):
        fit_thresholds(REAL._replace(unseen=cloud(2, 18, 0)), 0.95)
    fit_thresholds(REAL._replace(unseen=cloud(2, 19, 0)), 0.95)


def test_nearest_is_the_minimum_of_all_distances() -> None:
    queries, references = cloud(6, 5, 0), cloud(7, 9, 1)
    expected = [min(np.linalg.norm(query - reference) for reference in references) for query in queries]
    assert nearest(queries, references) == pytest.approx(expected)


@pytest.mark.parametrize("images", [1, 2, 6])
def test_a_new_part_of_several_images_fails_in_its_quantile(images: int) -> None:
    """With 20 parts of 6 images, a rank among the 120 images would reject the whole part less often."""
    rng, groups = np.random.default_rng(images), [str(i // images) for i in range(20 * images)]

    def parts(count: int) -> np.ndarray:
        return np.repeat(rng.normal(size=(count, 6)), images, axis=0) + 0.1 * rng.normal(size=(count * images, 6))

    near, far = [], []
    for _ in range(200):
        thresholds = fit_thresholds(REAL._replace(unseen=parts(20), groups=groups), 0.9)
        new = parts(40)
        near.append((nearest(new, REAL.negatives) <= thresholds.negatives).reshape(40, images).all(axis=1).mean())
        assert thresholds.positives is not None
        far.append((nearest(new, REAL.positives) >= thresholds.positives).reshape(40, images).all(axis=1).mean())
    for rejected in (near, far):
        assert 0.9 - 0.01 < np.mean(rejected) < 0.9 + 1 / 21 + 0.02


def test_many_images_of_few_parts_are_refused() -> None:
    unseen, groups = cloud(2, 108, 0), [str(i // 6) for i in range(108)]
    with pytest.raises(InputError, match=r"needs at least 19 good validation parts, but there are 18"):
        fit_thresholds(REAL._replace(unseen=unseen, groups=groups), 0.95)
