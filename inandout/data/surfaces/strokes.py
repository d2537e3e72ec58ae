"""Thin lines: paths of cracks and scratches, drawn as distance fields."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from inandout.data.surfaces.fields import Field, Shape

Path = npt.NDArray[np.float32]
"""(N, 3) with N >= 2: x, y and half the line width, in px."""

_FAR = 1e3
_MARGIN = 4.0


def strokes(shape: Shape, paths: Iterable[Path]) -> Field:
    """Return the signed distance (H, W) in px to the edge of the nearest line: negative inside, 1000 far from lines."""
    gap = np.full(shape, _FAR, dtype=np.float32)
    for path in paths:
        for start, end in pairwise(path):
            _segment(gap, start, end)
    return gap


def dot(centre: npt.NDArray[np.floating], radius: float) -> Path:
    """Return the path of a round spot."""
    x, y = centre
    return np.array([[x, y, radius], [x, y, radius]], dtype=np.float32)


def scratch_path(
    centre: tuple[float, float], length: float, angle: float, unit: float, rng: np.random.Generator, first: bool
) -> Path:
    """Draw the path of an almost straight scratch, tapered at both ends; the `first` one passes through `centre`."""
    angle += rng.normal(0, 0.05)
    along = np.linspace(-0.5, 0.5, 9)
    bow = rng.normal(0, 0.04) * length * (0.25 - along**2) * 2
    offset = 0.0 if first else rng.normal(0, 6 * unit)
    shift = 0.0 if first else rng.normal(0, 0.15) * length
    s, t = along * length + shift, bow - bow[4] + offset
    width = rng.uniform(0.25, 0.55) * unit**0.5 * (1 - (2 * along) ** 4) + 0.1
    x = centre[0] + s * np.cos(angle) - t * np.sin(angle)
    y = centre[1] + s * np.sin(angle) + t * np.cos(angle)
    return np.stack([x, y, width], axis=1).astype(np.float32)


def crack_paths(centre: tuple[float, float], length: float, unit: float, rng: np.random.Generator) -> list[Path]:
    """Draw a crack through `centre` and its branches, each thinner than its parent."""
    width, angle = rng.uniform(0.4, 0.8) * unit**0.7, rng.uniform(0, 2 * np.pi)
    forward = _walk(np.array(centre), angle, 0.5 * length, width, unit, rng)
    backward = _walk(np.array(centre), angle + np.pi + rng.normal(0, 0.3), 0.5 * length, width, unit, rng)
    paths = [np.concatenate([backward[::-1], forward[1:]])]
    for _ in range(int(rng.integers(1, 5))):
        trunk = paths[rng.integers(len(paths))]
        at = int(rng.integers(len(trunk) // 5, max(len(trunk) * 4 // 5, 1)))
        turn = rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
        ahead = trunk[min(at + 1, len(trunk) - 1)] - trunk[max(at - 1, 0)]
        heading = float(np.arctan2(ahead[1], ahead[0])) + turn
        branch_length, branch_width = length * rng.uniform(0.15, 0.4), 0.75 * float(trunk[at, 2])
        paths.append(_walk(trunk[at, :2], heading, branch_length, branch_width, unit, rng))
    return paths


def _walk(
    start: npt.NDArray[np.floating], angle: float, length: float, width: float, unit: float, rng: np.random.Generator
) -> Path:
    """Draw a jagged, tapering line from `start` in the mean direction `angle`."""
    step = 2.4 * unit
    steps = max(int(length / step), 2)
    headings = angle + rng.normal(0, 0.5, steps) + np.cumsum(rng.normal(0, 0.12, steps))
    strides = length / steps * rng.uniform(0.6, 1.4, steps)
    x = start[0] + np.concatenate([[0.0], np.cumsum(strides * np.cos(headings))])
    y = start[1] + np.concatenate([[0.0], np.cumsum(strides * np.sin(headings))])
    taper = width * (1 - 0.85 * np.linspace(0, 1, steps + 1) ** 1.5) * np.exp(rng.normal(0, 0.15, steps + 1))
    return np.stack([x, y, taper], axis=1).astype(np.float32)


def _segment(gap: Field, start: npt.NDArray[np.float32], end: npt.NDArray[np.float32]) -> None:
    """Draw one straight segment with linearly interpolated width."""
    x0, y0, width0 = (float(value) for value in start)
    x1, y1, width1 = (float(value) for value in end)
    margin = max(width0, width1) + _MARGIN
    left, right = max(int(min(x0, x1) - margin), 0), max(int(max(x0, x1) + margin) + 2, 0)
    top, bottom = max(int(min(y0, y1) - margin), 0), max(int(max(y0, y1) + margin) + 2, 0)
    window = gap[top:bottom, left:right]
    if not window.size:
        return
    x = np.arange(left, left + window.shape[1], dtype=np.float32)[None, :] - x0
    y = np.arange(top, top + window.shape[0], dtype=np.float32)[:, None] - y0
    dx, dy = x1 - x0, y1 - y0
    share = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
    edge = np.hypot(x - share * dx, y - share * dy) - (width0 + share * (width1 - width0))
    np.minimum(window, edge, out=window)
