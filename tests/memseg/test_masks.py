"""Masks are non-empty, and within the limits and the foreground."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare, kstest, uniform

from inandout.memseg import masks
from inandout.memseg.config import MaskConfig
from inandout.memseg.masks import AreaLimits, area_limits, draw_mask, find_foreground
from inandout.memseg.perlin import Noise

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_masks_are_not_empty_and_have_the_median_area_of_memseg() -> None:
    limits = area_limits(96 * 96, MaskConfig())
    areas = [draw_mask(96, 96, None, limits, np.random.default_rng(seed)).mean() for seed in range(500)]
    assert min(areas) >= 0.002
    assert max(areas) <= 0.5
    assert 0.04 < np.median(areas) < 0.065


def test_noise_scales_and_angles_match_memseg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each axis has 1 to 32 cells, all powers of two equally often. Angles are uniform in -90..90 degrees."""
    cells: list[int] = []
    degrees: list[float] = []

    def noise(width: int, height: int, x: int, y: int, angle: float, rng: np.random.Generator) -> Noise:
        cells.extend((x, y))
        degrees.append(angle)
        return np.ones((height, width), np.float32)

    monkeypatch.setattr(masks, "rotated_perlin_noise", noise)
    rng = np.random.default_rng(0)
    for _ in range(1200):
        draw_mask(2, 2, None, AreaLimits(1, 4), rng)
    counts = Counter(cells)
    assert set(counts) == {1, 2, 4, 8, 16, 32}
    assert chisquare(list(counts.values())).pvalue > 0.01
    assert chisquare(list(Counter(cells[::2]).values())).pvalue > 0.01
    assert kstest(degrees, uniform(-90, 180).cdf).pvalue > 0.01


def test_noise_above_one_half_is_an_anomaly(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.linspace(-1, 1, 401, dtype=np.float32)[None]
    monkeypatch.setattr(masks, "rotated_perlin_noise", lambda *arguments: ramp)
    np.testing.assert_array_equal(draw_mask(401, 1, None, AreaLimits(1, 401), np.random.default_rng(0)), ramp > 0.5)


def test_limits_hold_if_the_noise_never_meets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "THRESHOLD", 2.0)
    config = MaskConfig(min_area=0.1, max_area=0.2)
    limits = area_limits(150 * 50, config)
    for seed in range(10):
        assert limits.minimum <= draw_mask(150, 50, None, limits, np.random.default_rng(seed)).sum() <= limits.maximum


def test_limits_can_allow_a_single_number_of_pixels() -> None:
    limits = area_limits(30, MaskConfig(min_area=0.1, max_area=0.11))
    assert limits == (3, 3)
    assert np.count_nonzero(draw_mask(6, 5, None, limits, np.random.default_rng(0))) == 3


def test_brighter_and_darker_foregrounds_are_complements() -> None:
    sides = [
        MaskConfig.model_validate({"foreground_threshold": 90, "foreground_is": s}) for s in ("brighter", "darker")
    ]
    brighter, darker = (find_foreground(IMAGE, side) for side in sides)
    assert brighter is not None
    assert darker is not None
    np.testing.assert_array_equal(brighter, ~darker)
