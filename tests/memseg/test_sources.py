"""Structure sources: ten operations and a shuffle, for images of any shape."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare

from inandout.data.images import ImageArray
from inandout.memseg import sources
from inandout.memseg.operations import OPERATIONS, Operation
from inandout.memseg.sources import Box, shuffle_tiles, structure_source


def _image(height: int, width: int) -> ImageArray:
    return np.random.default_rng(0).integers(20, 220, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (33, 17)])
def test_an_operation_keeps_shape_and_mode_and_is_deterministic(operation: Operation, shape: tuple[int, int]) -> None:
    image = Image.fromarray(_image(*shape))
    for seed in range(10):
        changed = operation(image, np.random.default_rng(seed))
        assert (changed.size, changed.mode) == (image.size, "RGB")
        assert changed.tobytes() == operation(image, np.random.default_rng(seed)).tobytes()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_operation_changes_the_image(operation: Operation) -> None:
    image = _image(33, 17)
    changes = [np.asarray(operation(Image.fromarray(image), np.random.default_rng(seed))) for seed in range(5)]
    assert all((changed != image).mean() > 0.1 for changed in changes)


def test_there_are_ten_operations() -> None:
    assert len(set(OPERATIONS)) == 10


def test_a_structure_source_uses_three_different_operations_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    def recorder(number: int) -> Operation:
        def record(image: Image.Image, rng: np.random.Generator) -> Image.Image:
            used.append(number)
            return image

        return record

    monkeypatch.setattr(sources, "OPERATIONS", tuple(recorder(number) for number in range(len(OPERATIONS))))
    rng = np.random.default_rng(0)
    for _ in range(200):
        structure_source(_image(8, 8), 8, Box(0, 0, 8, 8), rng)
    assert len(used) == 600
    assert all(len(set(used[start : start + 3])) == 3 for start in range(0, 600, 3))
    counts = Counter(used)
    assert set(counts) == set(range(10))
    assert chisquare(list(counts.values())).pvalue > 0.01


def test_a_rotation_leaves_no_black_corners() -> None:
    image = Image.new("RGB", (60, 20), (90, 120, 150))
    for seed in range(10):
        rotated = np.asarray(OPERATIONS[-1](image, np.random.default_rng(seed)))
        assert rotated.min() >= 89


def test_a_shuffle_of_equal_tiles_permutes_the_pixels() -> None:
    image = _image(32, 64)
    shuffled = shuffle_tiles(image, 8, np.random.default_rng(0))
    assert (shuffled == image).mean() < 0.1
    before, after = (sorted(map(tuple, array.reshape(-1, 3).tolist())) for array in (image, shuffled))
    assert before == after


@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (33, 17), (600, 200)])
@pytest.mark.parametrize("grid", [1, 3, 8, 64])
def test_a_shuffle_accepts_any_shape(shape: tuple[int, int], grid: int) -> None:
    image = _image(*shape)
    shuffled = shuffle_tiles(image, grid, np.random.default_rng(0))
    assert shuffled.shape == image.shape
    if grid == 1:
        np.testing.assert_array_equal(shuffled, image)


def test_a_structure_source_fills_the_box_and_is_deterministic() -> None:
    image, box = _image(40, 30), Box(3, 5, 20, 35)
    first, again, other = (structure_source(image, 8, box, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (30, 17, 3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
