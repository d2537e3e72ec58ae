"""Masks: never empty, within limits and foreground."""

import numpy as np
import pytest

from inandout.memseg import masks
from inandout.memseg.config import MaskConfig
from inandout.memseg.masks import area_limits, draw_mask, find_foreground

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_no_mask_is_empty_and_the_median_is_memsegs() -> None:
    limits = area_limits(96 * 96, MaskConfig())
    areas = [draw_mask(96, 96, None, limits, np.random.default_rng(seed)).mean() for seed in range(500)]
    assert min(areas) >= 0.002
    assert max(areas) <= 0.5
    assert 0.04 < np.median(areas) < 0.065


def test_limits_that_noise_never_meets_are_still_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "THRESHOLD", 2.0)
    config = MaskConfig(min_area=0.1, max_area=0.2)
    limits = area_limits(150 * 50, config)
    for seed in range(10):
        assert limits.least <= draw_mask(150, 50, None, limits, np.random.default_rng(seed)).sum() <= limits.most


def test_an_exact_number_of_pixels_can_be_asked_for() -> None:
    limits = area_limits(30, MaskConfig(min_area=0.1, max_area=0.11))
    assert limits == (3, 3)
    assert np.count_nonzero(draw_mask(6, 5, None, limits, np.random.default_rng(0))) == 3


def test_every_pixel_is_object_or_background_and_none_is_both() -> None:
    sides = [
        MaskConfig.model_validate({"foreground_threshold": 90, "foreground_is": s}) for s in ("brighter", "darker")
    ]
    brighter, darker = (find_foreground(IMAGE, side) for side in sides)
    assert brighter is not None
    assert darker is not None
    np.testing.assert_array_equal(brighter, ~darker)
