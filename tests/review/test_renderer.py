from itertools import pairwise

import numpy as np
import pytest

from inandout.data.images import ImageArray
from inandout.diffusion.base.base import Base
from inandout.diffusion.sample.config import SamplingConfig
from inandout.errors import InputError
from inandout.review.prompt_lab import GenerationRequest
from inandout.review.renderer import Renderer
from tests.diffusion.tiny import BASE, tiny_adapter, tiny_pipeline

REQUEST = GenerationRequest(prompts=["cracked", "scratched"], alpha=0.5, guidance=2, number=2, seed=1)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    pipeline = tiny_pipeline()
    sampling = SamplingConfig(steps=2, guidance=3, scheduler="dpm++")
    return Renderer(Base(pipeline, BASE, "embedded"), tiny_adapter(pipeline), 32, 32, sampling)


def drawn(renderer: Renderer, **changes: object) -> list[tuple[int, ImageArray]]:
    return list(renderer.draw(GenerationRequest.model_validate(REQUEST.model_dump() | changes)))


def test_two_prompts_alternate_and_use_the_same_seeds(renderer: Renderer) -> None:
    images = drawn(renderer)
    assert [prompt for prompt, _ in images] == [0, 1, 0, 1]
    assert all(image.shape == (32, 32, 3) for _, image in images)
    same = drawn(renderer, prompts=["cracked", "cracked"])
    for (_, a), (_, b) in list(pairwise(same))[::2]:
        assert np.abs(a.astype(int) - b).max() <= 1


def test_every_field_of_a_request_changes_the_images(renderer: Renderer) -> None:
    before = drawn(renderer)
    for changes in ({"alpha": 1}, {"guidance": 9}, {"seed": 2}, {"negative_prompt": "scratched"}):
        after = drawn(renderer, **changes)
        assert any(not np.array_equal(a, b) for (_, a), (_, b) in zip(before, after, strict=True)), changes
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(before, drawn(renderer), strict=True))


def test_a_prompt_that_is_too_long_is_refused(renderer: Renderer) -> None:
    with pytest.raises(InputError, match="tokens"):
        drawn(renderer, prompts=["a " * 150])
