from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from inandout.review.flags import Flagger, change, count_flags
from inandout.review.views import THUMBNAIL, heat_map, thumbnail_webp
from tests.review.sessions import noise

REAL = [noise(1000 + number) for number in range(8)]


def flagger() -> Flagger:
    return Flagger(REAL, REAL[:6])


def test_an_ordinary_image_has_no_flag() -> None:
    judge = flagger()
    assert [judge.judge(noise(number)) for number in range(20)] == [[]] * 20


@pytest.mark.parametrize(
    ("image", "flag"),
    [(np.zeros((48, 32, 3), np.uint8), "black"), (np.full((48, 32, 3), 90, np.uint8), "flat"), (REAL[2], "copy")],
)
def test_useless_images_are_flagged(image: np.ndarray, flag: str) -> None:
    assert flagger().judge(image) == [flag]


def test_the_second_of_two_equal_images_is_flagged() -> None:
    judge = flagger()
    assert (judge.judge(noise(1)), judge.judge(noise(1)[:, ::-1])) == ([], ["duplicate"])


def test_images_unlike_every_real_defect_are_far() -> None:
    bright = np.clip(noise(1).astype(int) + 90, 0, 255).astype(np.uint8)
    red = noise(2) * np.array([1, 0, 0], np.uint8)
    judge = flagger()
    assert (judge.judge(bright), judge.judge(red)) == (["far"], ["far"])


def test_nothing_is_far_from_too_few_real_positives() -> None:
    bright = np.clip(noise(1).astype(int) + 90, 0, 255).astype(np.uint8)
    assert Flagger(REAL, REAL[:4]).judge(bright) == []


def test_a_local_change_is_no_copy_and_an_equal_image_is_unchanged() -> None:
    source = REAL[7]
    changed = source.copy()
    changed[4:9, 4:9] += 60
    judge = flagger()
    assert judge.judge(changed, source) == []
    assert judge.judge(source + 1, source) == ["unchanged"]


def test_the_heat_map_is_bright_at_large_differences() -> None:
    source = REAL[7]
    changed = source.copy()
    changed[4:9, 4:9] += 60
    heat = heat_map(changed, source).sum(axis=2)
    assert change(changed, source).max() == 60
    assert heat[4:9, 4:9].min() > 500
    assert heat[20:].max() < 10


def test_flags_are_counted() -> None:
    assert count_flags([["far", "copy"], [], ["far"]]) == {"copy": 1, "far": 2}


def test_a_thumbnail_has_few_pixels_and_bytes() -> None:
    data = thumbnail_webp(noise(0, 1000, 400))
    assert Image.open(BytesIO(data)).size == (77, THUMBNAIL)
    assert len(data) < 8000
    assert Image.open(BytesIO(thumbnail_webp(noise(0)))).size == (32, 48)
