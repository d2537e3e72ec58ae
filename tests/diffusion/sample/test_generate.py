import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from inandout.data.images import ImageArray, read_image
from inandout.diffusion.sample.generate import fill_pool, text2img_generator
from inandout.diffusion.sample.sampler import Sampled, SamplingConfig, image_seed
from tests.diffusion.tiny import tiny_pipeline

BLACK = {1, 4}
"""Candidates that are of no use."""


def draw(number: int) -> ImageArray:
    image = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    return np.zeros_like(image) if number in BLACK else image


class Maker:
    """Draws noise; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, numbers: range) -> Iterator[tuple[ImageArray, None]]:
        self.asked += numbers
        return ((draw(number), None) for number in numbers)


def test_images_of_no_use_are_counted_and_replaced(tmp_path: Path) -> None:
    state = fill_pool(tmp_path, 5, Maker(), 2, [])
    assert [one.number for one in state.kept] == [0, 2, 3, 5, 6]
    assert state.rejected == {"black": 2}
    assert all(np.array_equal(read_image(one.path), draw(one.number)) for one in state.kept)


def test_an_interrupted_folder_is_filled_with_the_same_images(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    fill_pool(whole, 6, Maker(), 2, [])
    first = Maker()
    fill_pool(parts, 3, first, 2, [])
    (parts / "index.jsonl").open("a").write('{"number": 5, "reje')  # killed in the middle of a line
    second = Maker()
    state = fill_pool(parts, 6, second, 2, [])
    assert state.rejected == {"black": 2}
    assert second.asked[0] == 4, "the block of the next candidate"
    for one in state.kept:
        assert np.array_equal(read_image(one.path), read_image(whole / one.path.name))
    assert (parts / "index.jsonl").read_text() == (whole / "index.jsonl").read_text()


def test_a_full_folder_makes_nothing(tmp_path: Path) -> None:
    fill_pool(tmp_path, 4, Maker(), 2, [])
    again = Maker()
    assert [one.number for one in fill_pool(tmp_path, 3, again, 2, []).kept] == [0, 2, 3]
    assert again.asked == []


def test_a_copy_of_a_training_image_is_kept_out(tmp_path: Path) -> None:
    state = fill_pool(tmp_path, 2, Maker(), 2, [draw(0)])
    assert state.rejected == {"copy": 1, "black": 1}
    assert [json.loads(line)["number"] for line in (tmp_path / "index.jsonl").read_text().splitlines()] == [2, 3]


def test_candidates_take_prompts_seeds_and_sizes_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], list[int], int, int]] = []

    def watched(
        pipeline: object, prompts: list[str], seeds: list[int], *, width: int, height: int, **_: object
    ) -> list[Sampled]:
        calls.append((prompts, seeds, width, height))
        return []

    monkeypatch.setattr("inandout.diffusion.sample.generate.sample", watched)
    config = SamplingConfig(sample_batch=3).resolved("embedded")
    generator = text2img_generator(tiny_pipeline(), ["a", "b"], 7, [(64, 64), (64, 128)], config, 1)
    for start in (0, 3, 6):
        list(generator(range(start, start + 3)))
    assert [call[0] for call in calls] == [["a", "b", "a"], ["b", "a", "b"], ["a", "b", "a"]]
    assert [seed for call in calls for seed in call[1]] == [image_seed(7, number) for number in range(9)]
    assert [call[2:] for call in calls] == [(64, 64), (64, 128), (64, 64)]
