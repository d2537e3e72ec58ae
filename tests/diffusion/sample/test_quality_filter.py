import time

import numpy as np
import pytest

from inandout.data.images import Picture
from inandout.data.surfaces import SURFACES, draw_surface
from inandout.diffusion.sample.quality_filter import Gate


def part(number: int, surface: str = "brushed", defect: str = "") -> Picture:
    return draw_surface(64, 64, number, defect, surface=surface, product=7).picture


def brighter(picture: Picture, levels: int = 20) -> Picture:
    return np.clip(picture.astype(np.int16) + levels, 0, 255).astype(np.uint8)


def gamma(picture: Picture, exponent: float) -> Picture:
    return np.rint(255 * (picture / 255) ** exponent).astype(np.uint8)


COPIES = {
    "identical": lambda picture: picture.copy(),
    "mirrored": lambda picture: picture[:, ::-1],
    "upside down": lambda picture: picture[::-1],
    "turned": lambda picture: picture[::-1, ::-1],
    "brighter": brighter,
    "darker": lambda picture: brighter(picture, -20),
    "gamma": lambda picture: gamma(picture, 1.5),
    "mirrored and lighter": lambda picture: gamma(picture[:, ::-1], 0.7),
}


def test_a_picture_made_of_nan_is_kept_out_whatever_it_looks_like() -> None:
    gate = Gate([])
    assert gate.judge(part(0), "non-finite") == "non-finite"
    assert gate.judge(np.zeros((64, 64, 3), dtype=np.uint8), "non-finite") == "non-finite"
    assert gate.judge(part(0)) is None  # the first was not remembered


def test_black_pictures_are_kept_out() -> None:
    black = np.zeros((96, 64, 3), dtype=np.uint8)
    black[:2, :20] = 200  # a few bright pixels do not make a picture
    assert Gate([]).judge(np.zeros_like(black)) == "black"
    assert Gate([]).judge(black) == "black"


@pytest.mark.parametrize("level", [17, 60, 128, 255])
def test_pictures_of_one_tone_are_kept_out(level: int) -> None:
    noise = np.random.default_rng(0).integers(-1, 1, (64, 64, 1))
    assert Gate([]).judge(np.full((64, 64, 3), level, dtype=np.uint8)) == "flat"
    assert Gate([]).judge(np.repeat(level + noise, 3, axis=2).astype(np.uint8)) == "flat"


@pytest.mark.parametrize("number", [2332, 1764, 264, 2937])
def test_the_smoothest_and_the_darkest_surfaces_may_enter(number: int) -> None:
    surface = draw_surface(64, 64, number, surface=None if number % 3 else "ceramic")
    assert surface.surface == "ceramic"
    assert Gate([]).judge(surface.picture) is None


@pytest.mark.parametrize("trained", [1, 5, 40])
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_a_training_picture_is_kept_out(name: str, trained: int) -> None:
    for surface in ("brushed", "ceramic"):
        training = [part(number, surface) for number in range(trained)]
        assert Gate(training).judge(COPIES[name](training[-1])) == "copy"


@pytest.mark.parametrize("name", COPIES)
def test_a_picture_that_was_accepted_before_is_kept_out(name: str) -> None:
    gate = Gate([part(number) for number in range(5)])
    assert gate.judge(part(10)) is None
    assert gate.judge(part(11)) is None
    assert gate.judge(COPIES[name](part(10))) == "duplicate"


@pytest.mark.parametrize("surface", SURFACES)
def test_different_parts_of_one_product_may_all_enter(surface: str) -> None:
    gate = Gate([part(number, surface) for number in range(1000, 1005)])
    assert [gate.judge(part(number, surface, "pitted" if number % 2 else "")) for number in range(80)] == [None] * 80
    assert gate.counts == {}


def test_training_pictures_may_have_any_size() -> None:
    large = np.repeat(np.repeat(part(0), 3, axis=0), 2, axis=1)
    assert Gate([large, part(1)]).judge(part(0)) == "copy"


def test_reasons_are_counted_on_from_where_an_interrupted_pool_was() -> None:
    gate = Gate([part(0)], {"black": 2, "copy": 1})
    black = np.zeros((64, 64, 3), dtype=np.uint8)
    for picture in (part(0), part(1), part(1), part(2), black):
        gate.judge(picture)
    assert gate.counts == {"black": 3, "copy": 2, "duplicate": 1}


def test_a_remembered_picture_is_as_good_as_an_accepted_one() -> None:
    gate = Gate([])
    for number in range(200):
        gate.remember(part(number, "grained"))
    assert [gate.judge(part(number, "grained")) for number in (0, 63, 64, 65, 199, 200)] == ["duplicate"] * 5 + [None]
    assert gate.counts == {"duplicate": 5}


def test_judging_is_quick_even_for_a_large_pool() -> None:
    gate = Gate([part(number) for number in range(10)] * 100)
    for number in range(1000):
        gate.remember(part(number % 10))
    picture = draw_surface(64, 192, 12345).picture
    times = []
    for _ in range(7):
        start = time.perf_counter()
        gate.judge(picture)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05  # measured: 2 ms
