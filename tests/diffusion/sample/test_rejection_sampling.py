from collections.abc import Iterator
from itertools import islice
from zlib import crc32

import numpy as np
import pytest

from inandout.data.images import Picture
from inandout.data.surfaces import draw_surface
from inandout.diffusion.sample.quality_filter import Gate, Reason
from inandout.diffusion.sample.rejection_sampling import TooManyRejectedError, fill
from inandout.errors import InputError

BLACK = np.zeros((32, 32, 3), dtype=np.uint8)
TRAINED = draw_surface(32, 32, 10**6).picture


class Model:
    """Makes a picture for each number; remembers what it was asked for."""

    def __init__(self, black: int = 3, repeated: int = 7, copied: int = 11) -> None:
        self.asked: list[range] = []
        self.made = 0
        self._black, self._repeated, self._copied = black, repeated, copied

    def __call__(self, numbers: range) -> Iterator[tuple[Picture, Reason | None]]:
        self.asked.append(numbers)
        for number in numbers:
            self.made += 1
            yield self._draw(number), "non-finite" if number % 13 == 12 else None

    def _draw(self, number: int) -> Picture:
        if number % self._black == self._black - 1:
            return BLACK
        if number % self._copied == self._copied - 1:
            return TRAINED
        return draw_surface(32, 32, number % self._repeated if number > 20 else number).picture


def test_rejected_pictures_are_replaced_by_the_next_candidates() -> None:
    gate, model = Gate([TRAINED]), Model()
    numbers = [number for number, _ in fill(12, model, gate, batch_size=4)]
    assert numbers == [0, 1, 3, 4, 6, 7, 9, 13, 15, 16, 18, 19]
    assert gate.counts == {"black": 6, "copy": 1, "non-finite": 1}
    assert model.asked == [range(start, start + 4) for start in range(0, 20, 4)]


def test_the_yielded_pictures_are_those_of_their_numbers() -> None:
    for number, picture in fill(10, Model(), Gate([TRAINED]), batch_size=3):
        assert np.array_equal(picture, draw_surface(32, 32, number).picture)


def test_nothing_is_made_that_is_not_needed() -> None:
    model = Model(black=10**6)
    assert [number for number, _ in fill(3, model, Gate([]), batch_size=8)] == [0, 1, 2]
    assert (model.asked, model.made) == ([range(8)], 3)
    assert list(fill(3, model, Gate([]), batch_size=8, accepted=3)) == []
    assert list(fill(0, model, Gate([]), batch_size=8)) == []
    assert model.made == 3


@pytest.mark.parametrize("stop_after", range(13))
def test_an_interrupted_pool_goes_on_as_if_it_had_not_been(stop_after: int) -> None:
    whole = Gate([TRAINED])
    expected = [(number, crc32(picture)) for number, picture in fill(13, Model(), whole, batch_size=5)]
    first = Gate([TRAINED])
    before = list(islice(fill(13, Model(), first, batch_size=5), stop_after))
    second, model = Gate([TRAINED], first.counts), Model()
    for _, picture in before:
        second.remember(picture)
    after = list(fill(13, model, second, batch_size=5, accepted=stop_after))
    assert [(number, crc32(picture)) for number, picture in [*before, *after]] == expected
    assert second.counts == whole.counts
    assert all(numbers.start % 5 == 0 and len(numbers) == 5 for numbers in model.asked)


def test_counts_at_a_yield_are_those_of_the_candidates_up_to_it() -> None:
    gate = Gate([TRAINED])
    for accepted, (number, _) in enumerate(fill(13, Model(), gate, batch_size=5), start=1):
        assert accepted + gate.counts.total() == number + 1


def test_a_larger_pool_begins_with_the_smaller_one() -> None:
    small, large = ([number for number, _ in fill(n, Model(), Gate([TRAINED]), batch_size=4)] for n in (5, 12))
    assert large[:5] == small


def one_good(numbers: range) -> Iterator[tuple[Picture, Reason | None]]:
    for number in numbers:
        yield draw_surface(32, 32, number).picture if number == 0 else BLACK, "non-finite" if number == 4 else None


def test_a_model_that_makes_nothing_of_use_is_stopped() -> None:
    gate, accepted = Gate([]), []
    with pytest.raises(TooManyRejectedError) as caught:
        accepted.extend(number for number, _ in fill(6, one_good, gate, batch_size=8))
    assert isinstance(caught.value, InputError)
    assert str(caught.value) == (
        "39 of 40 generated pictures were of no use (38 black, 1 non-finite), more than the 38 allowed for 6 good "
        "ones; choose another alpha, other prompts or another seed"
    )
    assert gate.counts.total() == 39


def late(good_from: int, numbers: range) -> Iterator[tuple[Picture, Reason | None]]:
    return ((draw_surface(32, 32, number).picture if number >= good_from else BLACK, None) for number in numbers)


def test_a_pool_that_just_fills_with_4n_and_20_candidates_is_let_through() -> None:
    pool = list(fill(6, lambda numbers: late(38, numbers), Gate([]), batch_size=5))
    assert [number for number, _ in pool] == list(range(38, 44))
    with pytest.raises(TooManyRejectedError, match="39 of 39"):
        list(fill(6, lambda numbers: late(39, numbers), Gate([]), batch_size=5))


def test_a_stopped_pool_is_stopped_again_when_it_goes_on() -> None:
    gate = Gate([], {"black": 20})
    with pytest.raises(TooManyRejectedError, match=r"39 of 39 .* \(39 black\)"):
        list(fill(6, lambda numbers: late(40, numbers), gate, batch_size=5))


def test_a_block_with_too_few_pictures_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(fill(6, lambda numbers: late(0, numbers[:3]), Gate([]), batch_size=5))
