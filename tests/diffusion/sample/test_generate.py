import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from inandout.data.images import ImageArray, read_image
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.generate import fill_pool, text2img_generator
from inandout.diffusion.sample.sampler import Sampled, image_seed
from tests.diffusion.tiny import tiny_pipeline

BLACK = {1, 4}
"""Numbers of the rejected candidates."""


def draw(number: int) -> ImageArray:
    image = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    return np.zeros_like(image) if number in BLACK else image


class NoiseGenerator:
    """Generates noise, and records the requested numbers."""

    def __init__(self) -> None:
        self.requested: list[int] = []

    def __call__(self, numbers: range) -> Iterator[tuple[ImageArray, None]]:
        self.requested += numbers
        return ((draw(number), None) for number in numbers)


def test_rejected_images_are_counted_and_replaced(tmp_path: Path) -> None:
    state = fill_pool(tmp_path, 5, NoiseGenerator(), 2, [])
    assert [one.number for one in state.kept] == [0, 2, 3, 5, 6]
    assert state.rejected == {"black": 2}
    assert all(np.array_equal(read_image(one.path), draw(one.number)) for one in state.kept)


def test_an_interrupted_folder_gets_the_same_images(tmp_path: Path) -> None:
    uninterrupted, interrupted = tmp_path / "uninterrupted", tmp_path / "interrupted"
    uninterrupted.mkdir()
    interrupted.mkdir()
    fill_pool(uninterrupted, 6, NoiseGenerator(), 2, [])
    first = NoiseGenerator()
    fill_pool(interrupted, 3, first, 2, [])
    (interrupted / "index.jsonl").open("a").write('{"number": 5, "reje')  # interrupted while writing a line
    (interrupted / ".000003.png.99.tmp").touch()  # or an image
    second = NoiseGenerator()
    state = fill_pool(interrupted, 6, second, 2, [])
    assert state.rejected == {"black": 2}
    assert second.requested[0] == 4, "the block of the next candidate"
    for one in state.kept:
        assert np.array_equal(read_image(one.path), read_image(uninterrupted / one.path.name))
    assert (interrupted / "index.jsonl").read_text() == (uninterrupted / "index.jsonl").read_text()
    assert {path.name for path in interrupted.iterdir()} == {path.name for path in uninterrupted.iterdir()}


def test_a_full_folder_generates_nothing(tmp_path: Path) -> None:
    fill_pool(tmp_path, 4, NoiseGenerator(), 2, [])
    generator = NoiseGenerator()
    assert [one.number for one in fill_pool(tmp_path, 3, generator, 2, []).kept] == [0, 2, 3]
    assert generator.requested == []


def test_a_copy_of_a_training_image_is_rejected(tmp_path: Path) -> None:
    state = fill_pool(tmp_path, 2, NoiseGenerator(), 2, [draw(0)])
    assert state.rejected == {"copy": 1, "black": 1}
    assert [json.loads(line)["number"] for line in (tmp_path / "index.jsonl").read_text().splitlines()] == [2, 3]


def test_candidates_cycle_through_prompts_and_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], list[int], int, int]] = []

    def record_call(
        pipeline: object, prompts: list[str], seeds: list[int], *, width: int, height: int, **_: object
    ) -> list[Sampled]:
        calls.append((prompts, seeds, width, height))
        return []

    monkeypatch.setattr("inandout.diffusion.sample.generate.sample", record_call)
    config = SamplingConfig(sample_batch=3).resolved("embedded")
    generator = text2img_generator(tiny_pipeline(), ["a", "b"], 7, [(64, 64), (64, 128)], config, 1)
    for start in (0, 3, 6):
        list(generator(range(start, start + 3)))
    assert [call[0] for call in calls] == [["a", "b", "a"], ["b", "a", "b"], ["a", "b", "a"]]
    assert [seed for call in calls for seed in call[1]] == [image_seed(7, number) for number in range(9)]
    assert [call[2:] for call in calls] == [(64, 64), (64, 128), (64, 64)]
