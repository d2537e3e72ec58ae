import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score

from inandout.data.images import Mask
from inandout.evaluation.localisation import (
    LARGE,
    MAX_FPR,
    SMALL,
    PixelCounts,
    ScoreMap,
    recall_by_kind,
    recall_by_size,
)


def images(count: int, seed: int) -> tuple[list[ScoreMap], list[Mask]]:
    """Return noisy scores with values that float16 represents, and masks of several regions; every third is empty."""
    rng = np.random.default_rng(seed)
    masks = [ndimage.gaussian_filter(rng.normal(size=(24, 20)), 2) > 0.22 for _ in range(count)]
    masks = [mask & (i % 3 > 0) for i, mask in enumerate(masks)]
    return [(rng.normal(3 * mask - 4, 2)).astype(np.float16).astype(np.float32) for mask in masks], masks


def count(scores: list[ScoreMap], masks: list[Mask]) -> PixelCounts:
    counts = PixelCounts()
    for each, mask in zip(scores, masks, strict=True):
        counts.add(each, mask)
    return counts


def plain_aupro(scores: list[ScoreMap], masks: list[Mask], limit: float) -> float:
    """Compute the curve threshold by threshold and integrate it finely."""
    regions = []
    for each, mask in zip(scores, masks, strict=True):
        numbers, found = ndimage.label(mask, np.ones((3, 3)))
        regions += [each[numbers == i + 1] for i in range(found)]
    good = np.concatenate([each[~mask] for each, mask in zip(scores, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([each.ravel() for each in scores]))[::-1]:
        points.append(((good >= threshold).mean(), np.mean([(region >= threshold).mean() for region in regions])))
    rates, overlaps = np.array(points).T
    grid = np.linspace(0, limit, 200_001)
    return float(np.interp(grid, rates, overlaps).mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_equal_those_of_plain_implementations(seed: int) -> None:
    scores, masks = images(7, seed)
    counts = count(scores, masks)
    flat, truth = np.concatenate([each.ravel() for each in scores]), np.concatenate([each.ravel() for each in masks])
    assert counts.defined
    assert counts.average_precision() == pytest.approx(average_precision_score(truth, flat), abs=1e-12)
    assert counts.aupro() == pytest.approx(plain_aupro(scores, masks, MAX_FPR), abs=1e-4)
    for threshold in (-3.0, float(flat[5]), 1.5):
        expected = (truth & (flat >= threshold)).sum() / (truth | (flat >= threshold)).sum()
        assert counts.iou(threshold) == pytest.approx(expected)
    best = counts.best_iou_threshold()
    assert counts.iou(best) == pytest.approx(max(counts.iou(float(value)) for value in np.unique(flat)))


def test_scores_are_rounded_to_float16_and_ordered_from_negative_to_positive() -> None:
    scores = np.array([[-7e4, -2.0, -1e-3, -0.0, 0.0, 1e-3, 2.0, 7e4]], np.float32)
    for i in range(8):
        mask = np.zeros((1, 8), bool)
        mask[0, i:] = True
        counts = count([scores], [mask])
        if i not in (0, 4):
            assert counts.average_precision() == 1
    assert count([np.full((1, 2), 0.1, np.float32)], [np.array([[True, False]])]).average_precision() == 0.5


def test_perfect_and_inverted_maps_have_extreme_values() -> None:
    _, masks = images(6, 3)
    assert count([mask.astype(np.float32) for mask in masks], masks).aupro() == 1
    inverted = count([(~mask).astype(np.float32) for mask in masks], masks)
    assert inverted.aupro() == pytest.approx(0)
    assert inverted.iou(0.5) == 0


def test_counts_without_defects_or_without_good_pixels_are_undefined() -> None:
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    scores = np.zeros((4, 4), np.float32)
    assert not PixelCounts().defined
    assert not count([scores], [empty]).defined
    assert not count([scores], [full]).defined
    assert count([scores, scores], [empty, full]).defined


def test_recalls_count_defects_by_size_and_kind() -> None:
    detected = np.array([True, False, True, True, False, True])
    areas = [0, SMALL - 1, SMALL, LARGE - 1, LARGE, LARGE]
    assert recall_by_size(areas, detected) == {"small": (1, 0.0), "medium": (2, 1.0), "large": (2, 0.5)}
    assert recall_by_kind(["crack", "", "crack", "pit", "pit", "crack"], detected) == {
        "crack": (3, 1.0),
        "pit": (2, 0.5),
    }
