from itertools import pairwise

import numpy as np
import pytest

from inandout.data.images import Picture
from inandout.diffusion.base.base import Base
from inandout.diffusion.sample.sampler import SamplingConfig
from inandout.errors import InputError
from inandout.review.prompt_lab import Wish
from inandout.review.renderer import Painter
from tests.diffusion.tiny import BASE, tiny_adapter, tiny_pipeline

WISH = Wish(prompts=["cracked", "scratched"], alpha=0.5, guidance=2, number=2, seed=1)


@pytest.fixture(scope="module")
def painter() -> Painter:
    pipeline = tiny_pipeline()
    how = SamplingConfig(steps=2, guidance=3, scheduler="dpm++")
    return Painter(Base(pipeline, BASE, "embedded"), tiny_adapter(pipeline), 32, 32, how)


def drawn(painter: Painter, **changes: object) -> list[tuple[int, Picture]]:
    return list(painter.draw(Wish.model_validate(WISH.model_dump() | changes)))


def test_two_prompts_are_drawn_in_turn_from_the_same_seeds(painter: Painter) -> None:
    pictures = drawn(painter)
    assert [prompt for prompt, _ in pictures] == [0, 1, 0, 1]
    assert all(picture.shape == (32, 32, 3) for _, picture in pictures)
    same = drawn(painter, prompts=["cracked", "cracked"])
    for (_, a), (_, b) in list(pairwise(same))[::2]:
        assert np.abs(a.astype(int) - b).max() <= 1


def test_every_field_of_a_wish_counts(painter: Painter) -> None:
    before = drawn(painter)
    for changes in ({"alpha": 1}, {"guidance": 9}, {"seed": 2}, {"negative_prompt": "scratched"}):
        after = drawn(painter, **changes)
        assert any(not np.array_equal(a, b) for (_, a), (_, b) in zip(before, after, strict=True)), changes
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(before, drawn(painter), strict=True))


def test_a_prompt_that_is_too_long_is_refused(painter: Painter) -> None:
    with pytest.raises(InputError, match="tokens"):
        drawn(painter, prompts=["a " * 150])
