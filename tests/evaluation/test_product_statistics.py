import numpy as np
import pytest

from inandout.data.images import ImageArray
from inandout.data.surfaces import KINDS, draw_surface
from inandout.errors import InputError
from inandout.evaluation.product_statistics import image_statistics, product_shares


def parts(surface: str, first: int, count: int, product: int = 3, defect: str = "") -> list[ImageArray]:
    return [draw_surface(64, 64, first + seed, defect, surface, product).image for seed in range(count)]


GOOD = parts("brushed", 0, 40)


def test_unseen_parts_of_the_product_are_in_it_with_and_without_defects() -> None:
    assert product_shares(parts("brushed", 1000, 40), GOOD).product >= 0.9
    defective = [image for kind in KINDS for image in parts("brushed", 2000, 10, defect=kind)]
    assert product_shares(defective, GOOD).product >= 0.9


def test_other_products_are_not_in_it() -> None:
    others = [draw_surface(64, 64, seed).image for seed in range(60)]
    assert product_shares(others, GOOD).product <= 0.1


@pytest.mark.parametrize(
    ("group", "change"),
    [
        ("colour", lambda image: image[:, :, ::-1]),
        ("light", lambda image: (image * 0.3).astype(np.uint8)),
        ("texture", lambda image: image.transpose(1, 0, 2)),
    ],
)
def test_a_change_of_one_group_is_seen_in_it(group: str, change: object) -> None:
    assert callable(change)
    unseen = parts("brushed", 1000, 40)
    before, after = product_shares(unseen, GOOD), product_shares([change(image) for image in unseen], GOOD)
    assert getattr(before, group) >= 0.9
    assert getattr(after, group) <= 0.5
    assert after.product <= getattr(after, group)


def test_grey_images_have_no_colour_and_count() -> None:
    grey = [np.repeat(image[:, :, :1], 3, axis=2) for image in GOOD]
    assert image_statistics(grey[0])[:2].tolist() == [0, 0]
    assert product_shares(grey, grey).product >= 0.9
    assert product_shares(GOOD, grey).colour <= 0.1


def test_a_small_defect_does_not_change_the_statistics() -> None:
    clean = parts("brushed", 5, 1)[0]
    marked = clean.copy()
    marked[20:28, 20:28] = 0
    assert np.abs(image_statistics(marked) - image_statistics(clean)).max() < 3


def test_few_good_parts_are_refused() -> None:
    with pytest.raises(InputError, match="19 good parts are too few"):
        product_shares(GOOD, GOOD[:19])
