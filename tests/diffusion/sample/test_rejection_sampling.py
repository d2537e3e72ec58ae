from collections.abc import Iterator
from itertools import islice
from zlib import crc32

import numpy as np
import pytest

from inandout.data.images import ImageArray
from inandout.data.surfaces import draw_surface
from inandout.diffusion.sample.quality_filter import QualityFilter, RejectReason
from inandout.diffusion.sample.rejection_sampling import TooManyRejectedError, rejection_sample
from inandout.errors import InputError

BLACK = np.zeros((32, 32, 3), dtype=np.uint8)
TRAINED = draw_surface(32, 32, 10**6).image


class Model:
    """Generates an image for each number, and records the requested numbers."""

    def __init__(self, black: int = 3, repeated: int = 7, copied: int = 11) -> None:
        self.requested: list[range] = []
        self.generated = 0
        self._black, self._repeated, self._copied = black, repeated, copied

    def __call__(self, numbers: range) -> Iterator[tuple[ImageArray, RejectReason | None]]:
        self.requested.append(numbers)
        for number in numbers:
            self.generated += 1
            yield self._draw(number), "non-finite" if number % 13 == 12 else None

    def _draw(self, number: int) -> ImageArray:
        if number % self._black == self._black - 1:
            return BLACK
        if number % self._copied == self._copied - 1:
            return TRAINED
        return draw_surface(32, 32, number % self._repeated if number > 20 else number).image


def test_rejected_images_are_replaced_by_the_next_candidates() -> None:
    quality_filter, model = QualityFilter([TRAINED]), Model()
    numbers = [number for number, _ in rejection_sample(12, model, quality_filter, batch_size=4)]
    assert numbers == [0, 1, 3, 4, 6, 7, 9, 13, 15, 16, 18, 19]
    assert quality_filter.counts == {"black": 6, "copy": 1, "non-finite": 1}
    assert model.requested == [range(start, start + 4) for start in range(0, 20, 4)]


def test_the_yielded_images_belong_to_their_numbers() -> None:
    for number, image in rejection_sample(10, Model(), QualityFilter([TRAINED]), batch_size=3):
        assert np.array_equal(image, draw_surface(32, 32, number).image)


def test_no_more_images_than_necessary_are_generated() -> None:
    model = Model(black=10**6)
    assert [number for number, _ in rejection_sample(3, model, QualityFilter([]), batch_size=8)] == [0, 1, 2]
    assert (model.requested, model.generated) == ([range(8)], 3)
    assert list(rejection_sample(3, model, QualityFilter([]), batch_size=8, accepted=3)) == []
    assert list(rejection_sample(0, model, QualityFilter([]), batch_size=8)) == []
    assert model.generated == 3


@pytest.mark.parametrize("stop_after", range(13))
def test_a_resumed_pool_equals_an_uninterrupted_one(stop_after: int) -> None:
    uninterrupted = QualityFilter([TRAINED])
    candidates = rejection_sample(13, Model(), uninterrupted, batch_size=5)
    expected = [(number, crc32(image.tobytes())) for number, image in candidates]
    first = QualityFilter([TRAINED])
    before = list(islice(rejection_sample(13, Model(), first, batch_size=5), stop_after))
    second, model = QualityFilter([TRAINED], first.counts), Model()
    for _, image in before:
        second.remember(image)
    after = list(rejection_sample(13, model, second, batch_size=5, accepted=stop_after))
    assert [(number, crc32(image.tobytes())) for number, image in [*before, *after]] == expected
    assert second.counts == uninterrupted.counts
    assert all(numbers.start % 5 == 0 and len(numbers) == 5 for numbers in model.requested)


def test_counts_at_a_yield_cover_the_candidates_up_to_it() -> None:
    quality_filter = QualityFilter([TRAINED])
    for accepted, (number, _) in enumerate(rejection_sample(13, Model(), quality_filter, batch_size=5), start=1):
        assert accepted + quality_filter.counts.total() == number + 1


def test_a_larger_pool_begins_with_the_smaller_one() -> None:
    small, large = (
        [number for number, _ in rejection_sample(n, Model(), QualityFilter([TRAINED]), batch_size=4)] for n in (5, 12)
    )
    assert large[:5] == small


def one_good(numbers: range) -> Iterator[tuple[ImageArray, RejectReason | None]]:
    for number in numbers:
        yield draw_surface(32, 32, number).image if number == 0 else BLACK, "non-finite" if number == 4 else None


def test_too_many_rejections_stop_the_pool() -> None:
    quality_filter = QualityFilter([])
    accepted: list[int] = []
    with pytest.raises(TooManyRejectedError) as caught:
        accepted.extend(number for number, _ in rejection_sample(6, one_good, quality_filter, batch_size=8))
    assert isinstance(caught.value, InputError)
    assert str(caught.value) == (
        "39 of 40 generated images were rejected (38 black, 1 non-finite), more than the 38 allowed for 6 wanted "
        "images; change alpha, prompts or seed"
    )
    assert quality_filter.counts.total() == 39


def good_from_number(good_from: int, numbers: range) -> Iterator[tuple[ImageArray, RejectReason | None]]:
    return ((draw_surface(32, 32, number).image if number >= good_from else BLACK, None) for number in numbers)


def test_a_pool_that_is_filled_by_4n_plus_20_candidates_is_allowed() -> None:
    pool = list(rejection_sample(6, lambda numbers: good_from_number(38, numbers), QualityFilter([]), batch_size=5))
    assert [number for number, _ in pool] == list(range(38, 44))
    with pytest.raises(TooManyRejectedError, match="39 of 39"):
        list(rejection_sample(6, lambda numbers: good_from_number(39, numbers), QualityFilter([]), batch_size=5))


def test_a_stopped_pool_stops_again_when_resumed() -> None:
    quality_filter = QualityFilter([], {"black": 20})
    with pytest.raises(TooManyRejectedError, match=r"39 of 39 .* \(39 black\)"):
        list(rejection_sample(6, lambda numbers: good_from_number(40, numbers), quality_filter, batch_size=5))


def test_a_block_with_too_few_images_raises_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(rejection_sample(6, lambda numbers: good_from_number(0, numbers[:3]), QualityFilter([]), batch_size=5))
