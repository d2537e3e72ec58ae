import time

import numpy as np
import pytest

from inandout.data.images import ImageArray
from inandout.data.surfaces import SURFACES, draw_surface
from inandout.diffusion.sample.quality_filter import QualityFilter


def part(number: int, surface: str = "brushed", defect: str = "") -> ImageArray:
    return draw_surface(64, 64, number, defect, surface=surface, product=7).image


def brighter(image: ImageArray, levels: int = 20) -> ImageArray:
    return np.clip(image.astype(np.int16) + levels, 0, 255).astype(np.uint8)


def gamma(image: ImageArray, exponent: float) -> ImageArray:
    return np.rint(255 * (image / 255) ** exponent).astype(np.uint8)


COPIES = {
    "identical": lambda image: image.copy(),
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned": lambda image: image[::-1, ::-1],
    "brighter": brighter,
    "darker": lambda image: brighter(image, -20),
    "gamma": lambda image: gamma(image, 1.5),
    "mirrored and lighter": lambda image: gamma(image[:, ::-1], 0.7),
}


def test_a_non_finite_image_is_rejected_whatever_its_pixels() -> None:
    quality_filter = QualityFilter([])
    assert quality_filter.judge(part(0), "non-finite") == "non-finite"
    assert quality_filter.judge(np.zeros((64, 64, 3), dtype=np.uint8), "non-finite") == "non-finite"
    assert quality_filter.judge(part(0)) is None  # rejected images are not remembered


def test_black_images_are_rejected() -> None:
    black = np.zeros((96, 64, 3), dtype=np.uint8)
    black[:2, :20] = 200  # a few bright pixels do not make an image
    assert QualityFilter([]).judge(np.zeros_like(black)) == "black"
    assert QualityFilter([]).judge(black) == "black"


@pytest.mark.parametrize("level", [17, 60, 128, 255])
def test_flat_images_are_rejected(level: int) -> None:
    noise = np.random.default_rng(0).integers(-1, 1, (64, 64, 1))
    assert QualityFilter([]).judge(np.full((64, 64, 3), level, dtype=np.uint8)) == "flat"
    assert QualityFilter([]).judge(np.repeat(level + noise, 3, axis=2).astype(np.uint8)) == "flat"


@pytest.mark.parametrize("number", [2332, 1764, 264, 2937])
def test_the_smoothest_and_the_darkest_surfaces_are_accepted(number: int) -> None:
    surface = draw_surface(64, 64, number, surface=None if number % 3 else "ceramic")
    assert surface.surface == "ceramic"
    assert QualityFilter([]).judge(surface.image) is None


@pytest.mark.parametrize("trained", [1, 5, 40])
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_a_training_image_is_rejected(name: str, trained: int) -> None:
    for surface in ("brushed", "ceramic"):
        training = [part(number, surface) for number in range(trained)]
        assert QualityFilter(training).judge(COPIES[name](training[-1])) == "copy"


@pytest.mark.parametrize("name", COPIES)
def test_a_repeat_of_an_accepted_image_is_rejected(name: str) -> None:
    quality_filter = QualityFilter([part(number) for number in range(5)])
    assert quality_filter.judge(part(10)) is None
    assert quality_filter.judge(part(11)) is None
    assert quality_filter.judge(COPIES[name](part(10))) == "duplicate"


@pytest.mark.parametrize("surface", SURFACES)
def test_different_parts_of_one_product_are_accepted(surface: str) -> None:
    quality_filter = QualityFilter([part(number, surface) for number in range(1000, 1005)])
    parts = [part(number, surface, "pitted" if number % 2 else "") for number in range(80)]
    assert [quality_filter.judge(one) for one in parts] == [None] * 80
    assert quality_filter.counts == {}


def test_training_images_may_have_any_size() -> None:
    large = np.repeat(np.repeat(part(0), 3, axis=0), 2, axis=1)
    assert QualityFilter([large, part(1)]).judge(part(0)) == "copy"


def test_counting_continues_from_an_interrupted_pool() -> None:
    quality_filter = QualityFilter([part(0)], {"black": 2, "copy": 1})
    black = np.zeros((64, 64, 3), dtype=np.uint8)
    for image in (part(0), part(1), part(1), part(2), black):
        quality_filter.judge(image)
    assert quality_filter.counts == {"black": 3, "copy": 2, "duplicate": 1}


def test_a_remembered_image_counts_as_accepted() -> None:
    quality_filter = QualityFilter([])
    for number in range(200):
        quality_filter.remember(part(number, "grained"))
    results = [quality_filter.judge(part(number, "grained")) for number in (0, 63, 64, 65, 199, 200)]
    assert results == ["duplicate"] * 5 + [None]
    assert quality_filter.counts == {"duplicate": 5}


def test_judging_is_fast_for_a_large_pool() -> None:
    quality_filter = QualityFilter([part(number) for number in range(10)] * 100)
    for number in range(1000):
        quality_filter.remember(part(number % 10))
    image = draw_surface(64, 192, 12345).image
    times = []
    for _ in range(7):
        start = time.perf_counter()
        quality_filter.judge(image)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05  # measured: 2 ms
