import numpy as np
from PIL import Image

from inandout.data.colour import is_grey, luma, without_colour

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_luma_equals_pillow() -> None:
    np.testing.assert_array_equal(luma(IMAGE), np.asarray(Image.fromarray(IMAGE).convert("L")))


def test_one_coloured_pixel_makes_an_image_coloured() -> None:
    grey = without_colour(IMAGE)
    assert is_grey(grey)
    assert not is_grey(IMAGE)
    np.testing.assert_array_equal(without_colour(grey), grey)
    grey[3, 4, 2] += 1
    assert not is_grey(grey)
