import numpy as np
import pytest

from inandout.diffusion.sample.square_window import (
    Window,
    crop,
    crop_mask,
    own_size,
    paste,
    random_window,
    window_around,
)
from inandout.errors import InputError
from tests.diffusion.tiny import tiny_pipeline

RNG = np.random.default_rng(0)


def image(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_window_has_the_mask_in_its_centre_and_stays_in_the_image() -> None:
    mask = np.zeros((40, 100), bool)
    mask[20:22, 50:60] = True
    assert window_around(mask, 16) == Window(46, 12, 16)
    mask[:] = False
    mask[0, 99] = True
    assert window_around(mask, 16) == Window(84, 0, 16)
    assert window_around(mask, 64) == Window(60, 0, 40)


def test_random_windows_are_on_the_foreground_and_reach_every_corner() -> None:
    part, foreground = image(32, 48), np.zeros((32, 48), bool)
    foreground[:, :8] = True
    on_object = [random_window(part, 8, foreground, RNG) for _ in range(200)]
    assert {window.left for window in on_object} <= set(range(5))
    anywhere = [random_window(part, 8, None, RNG) for _ in range(500)]
    assert {window.left for window in anywhere} >= {0, 40} and {window.top for window in anywhere} >= {0, 24}
    assert random_window(part, 8, np.zeros((32, 48), bool), RNG) == Window(20, 12, 8)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_pasting_changes_pixels_of_the_mask_alone(side: int) -> None:
    part, window = image(60, 80), Window(30, 20, 32)
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    drawn = np.where(mask[..., None], 255 - crop(part, window, side), crop(part, window, side)).astype(np.uint8)
    pasted, whole_mask = paste(part, window, drawn, mask)
    assert whole_mask.sum() == 8 * 8 and whole_mask[28:36, 38:46].all()
    assert np.array_equal(pasted[~whole_mask], part[~whole_mask])
    assert (pasted[whole_mask] != part[whole_mask]).any()
    assert np.array_equal(crop_mask(whole_mask, window, side), mask)
    if side == 32:
        assert np.array_equal(crop(pasted, window, side), drawn)


def test_the_own_size_of_a_base_is_that_of_its_training() -> None:
    pipeline = tiny_pipeline()
    assert own_size(pipeline) == pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    pipeline.unet.register_to_config(sample_size=None)
    with pytest.raises(InputError, match="sample_size = None"):
        own_size(pipeline)
