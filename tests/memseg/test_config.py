"""Bounds of the configuration."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from inandout.memseg.config import MaskConfig, MemSegConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opacity_min": 0.9, "opacity_max": 0.4}, "opacity_min = 0.9 must not exceed opacity_max = 0.4"),
        ({"opacity_min": 0.0}, "greater than or equal to 0.05"),
        ({"texture_share": float("nan")}, "finite number"),
        ({"grid": 0}, "greater than or equal to 1"),
        ({"opacity": 0.5}, "Extra inputs are not permitted"),
    ],
)
def test_a_configuration_out_of_bounds_raises_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        MemSegConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_area": 0.3, "max_area": 0.2}, "min_area = 0.3 must be less than max_area = 0.2"),
        ({"min_area": 0.0}, "greater than 0"),
        ({"max_area": 1.1}, "less than or equal to 1"),
        ({"foreground_threshold": 255}, "less than or equal to 254"),
        ({"foreground_is": "left"}, "'brighter' or 'darker'"),
    ],
)
def test_masks_outside_their_bounds_raise_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        MaskConfig(**changes)
