"""Perlin noise: definition, shapes, range and rotation."""

import math
from itertools import product

import numpy as np
import pytest

from inandout.memseg.perlin import Noise, draw_gradients, perlin_noise, rotated_perlin_noise

SHAPES = [(17, 33, 4, 8), (33, 17, 2, 1), (1, 1, 1, 1), (5, 3, 32, 32), (40, 24, 8, 4)]


def reference_noise(width: int, height: int, cells_x: int, cells_y: int, rng: np.random.Generator) -> Noise:
    """Evaluate the definition pixel by pixel and corner by corner."""
    gradients = draw_gradients(cells_y + 1, cells_x + 1, rng)
    noise = np.zeros((height, width))
    for j, i in product(range(height), range(width)):
        x, y = i * cells_x / width, j * cells_y / height
        for row, column in product((int(y), int(y) + 1), (int(x), int(x) + 1)):
            dx, dy = x - column, y - row
            weight = math.prod(1 - (6 * t**5 - 15 * t**4 + 10 * t**3) for t in (abs(dx), abs(dy)))
            noise[j, i] += weight * (gradients[0, row, column] * dx + gradients[1, row, column] * dy)
    return (math.sqrt(2) * noise).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_equals_the_reference_loop(shape: tuple[int, int, int, int]) -> None:
    fast = perlin_noise(*shape, np.random.default_rng(3))
    assert fast.shape == (shape[1], shape[0])
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, reference_noise(*shape, np.random.default_rng(3)), atol=2e-6)


@pytest.mark.parametrize(("width", "height"), [(17, 33), (200, 600), (632, 224)])
def test_noise_is_in_range_for_all_scales_and_shapes(width: int, height: int) -> None:
    rng = np.random.default_rng(0)
    for a, b in product(range(6), range(6)):
        noise = perlin_noise(width, height, 2**a, 2**b, rng)
        assert noise.shape == (height, width)
        assert np.abs(noise).max() <= 1.001


def test_gradients_are_unit_vectors_in_all_directions() -> None:
    gradients = draw_gradients(40, 40, np.random.default_rng(0))
    np.testing.assert_allclose(np.hypot(*gradients), 1, atol=1e-6)
    assert np.abs(gradients.mean(axis=(1, 2))).max() < 0.05


def test_noise_is_zero_at_lattice_points() -> None:
    noise = perlin_noise(64, 64, 4, 8, np.random.default_rng(0))
    assert not noise[::8, ::16].any()
    assert np.abs(noise).max() > 0.5


@pytest.mark.parametrize("degrees", [-90.0, -37.0, 0.0, 45.0, 90.0])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 33), (200, 60)])
def test_rotated_noise_fills_every_corner(width: int, height: int, degrees: float) -> None:
    corners = []
    for seed in range(20):
        noise = rotated_perlin_noise(width, height, 5, 3, degrees, np.random.default_rng(seed))
        assert noise.shape == (height, width)
        assert np.abs(noise).max() <= 1.001
        corners.append([noise[y, x].std() for y, x in product((slice(5), slice(-5, None)), repeat=2)])
    if width > 1:
        assert np.min(corners) > 0.001


def test_rotation_by_zero_changes_nothing() -> None:
    width, height, cells = 48, 32, 4
    rotated = rotated_perlin_noise(width, height, cells, cells, 0.0, np.random.default_rng(1))
    lattice = (rotated[:: height // cells, :: width // cells]).copy()
    np.testing.assert_allclose(lattice, 0, atol=1e-6)


def test_rotation_is_counter_clockwise() -> None:
    """Noise of 1 x 32 cells has horizontal stripes, which rise to the right after a small rotation."""
    noise = rotated_perlin_noise(128, 128, 1, 32, 20.0, np.random.default_rng(0))
    shift = round(20 * math.tan(math.radians(20)))
    rising = np.mean(noise[shift:, :-20] * noise[:-shift, 20:])
    falling = np.mean(noise[:-shift, :-20] * noise[shift:, 20:])
    assert rising > 0.02 > 2 * falling
