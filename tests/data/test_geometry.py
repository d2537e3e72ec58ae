from pathlib import Path

import numpy as np
import pytest

from inandout.data.config import Geometry
from inandout.data.geometry import fit_image, fit_mask, survival
from inandout.data.images import write_image
from inandout.data.manifest import Sample


@pytest.mark.parametrize("size", [(230, 630), (200, 600), (630, 230), (33, 517), (100, 100)])
def test_the_crop_box_is_centred_and_has_the_aspect_ratio(size: tuple[int, int]) -> None:
    left, top, right, bottom = Geometry(width=200, height=600).box(*size)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert abs(left - (size[0] - right)) <= 1
    assert abs(top - (size[1] - bottom)) <= 1
    assert (right - left == size[0]) or (bottom - top == size[1]), "the box must be the largest possible"
    assert abs((right - left) / (bottom - top) - 1 / 3) < 0.03


def crop_to(width: int, height: int) -> Geometry:
    return Geometry(width=width, height=height)


def test_stretching_keeps_the_whole_image() -> None:
    geometry = Geometry(width=32, height=32, fit="stretch")
    assert geometry.box(100, 40) == (0, 0, 100, 40)
    mask = np.zeros((40, 100), bool)
    mask[0, 0] = mask[-1, -1] = True
    fitted = fit_mask(mask, geometry)
    assert fitted[0, 0]
    assert fitted[-1, -1]
    assert fitted.sum() == 2


def test_an_image_of_the_target_size_is_returned_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 48, 3), dtype=np.uint8)
    assert fit_image(image, crop_to(48, 60)) is image


def test_fitting_keeps_the_centre() -> None:
    image = np.zeros((60, 100, 3), np.uint8)
    image[:, 40:60] = 200
    fitted = fit_image(image, crop_to(36, 36))
    assert fitted.shape == (36, 36, 3)
    assert fitted[:, 16:20].min() > 190
    assert fitted[:, :8].max() == 0


@pytest.mark.parametrize("to", [(200, 600), (64, 192), (32, 32), (500, 700)])
def test_a_one_pixel_defect_survives_any_resize(to: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    left, top, right, bottom = crop_to(*to).box(230, 630)
    for _ in range(50):
        mask = np.zeros((630, 230), bool)
        mask[rng.integers(top, bottom), rng.integers(left, right)] = True
        assert fit_mask(mask, crop_to(*to)).any()


def test_a_mask_stays_aligned_with_its_image() -> None:
    mask = np.zeros((180, 120), bool)
    mask[60:120, 42:78] = True
    fitted = fit_mask(mask, crop_to(40, 60))
    image = fit_image(np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255, crop_to(40, 60))
    assert np.array_equal(fitted, image[:, :, 0] > 127)


def test_defects_outside_the_crop_are_counted(tmp_path: Path) -> None:
    mask = np.zeros((64, 128), bool)
    mask[5, 5] = mask[30:33, 60:62] = True
    write_image(tmp_path / "m.png", mask)
    result = survival([Sample(image=tmp_path / "i.png", mask=tmp_path / "m.png", label=1)], crop_to(32, 32))
    assert (result.defects, result.lost, result.smallest, result.pixels_per_pixel) == (2, 1, 6, 4.0)
    assert "1 of 2 defects survive" in result.sentence()


def test_survival_is_unknown_without_masks(tmp_path: Path) -> None:
    assert survival([Sample(image=tmp_path / "i.png", label=1)], crop_to(32, 32)).smallest is None
