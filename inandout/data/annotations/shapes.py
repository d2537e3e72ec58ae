"""Shapes of annotations and masks: run lengths, polygons and boxes.

Coordinates are pixels from the top left corner of the image, so that pixel (row, column) covers column..column + 1 and
row..row + 1. A mask and its run lengths or polygons have exactly the same pixels.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from inandout.data.images import Mask

Points = npt.NDArray[np.float64]
"""Corners (K, 2) of a polygon as (x, y)."""


def regions(mask: Mask) -> Iterator[Mask]:
    """Yield each region (H, W) of pixels that share an edge."""
    numbers, count = ndimage.label(mask)
    for number in range(1, count + 1):
        yield numbers == number


def bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def fill_polygon(points: Points, height: int, width: int) -> Mask:
    """Return the pixels (height, width) whose centre is inside a polygon (K, 2), by the even-odd rule."""
    toggles = np.zeros((height, width + 1), np.int64)
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        # From top to bottom, so that an edge that is followed in both directions cancels exactly.
        (y, x), (next_y, next_x) = sorted([(start[1], start[0]), (end[1], end[0])])
        first, last = np.ceil(np.clip([y, next_y], 0, height) - 0.5).astype(int)
        rows = np.arange(first, last)
        if len(rows):
            crossings = x + (rows + 0.5 - y) * (next_x - x) / (next_y - y)
            np.add.at(toggles, (rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(int)), 1)
    filled: Mask = toggles.cumsum(1)[:, :width] % 2 == 1
    return filled


def trace_polygon(region: Mask) -> Points:
    """Return the polygon (K, 2) of the edges of a region; `fill_polygon` of it is the region again.

    A hole is joined to the outline by an edge that the polygon follows in both directions.
    """
    outline, *holes = sorted(_loops(region), key=lambda loop: min(loop))
    points = list(outline)
    for hole in holes:
        points += [outline[0], *hole, hole[0]]
    return np.array(points, np.float64)


def _loops(region: Mask) -> list[list[tuple[int, int]]]:
    """Return the closed loops of the pixel edges between a region and its surroundings, as corners (x, y)."""
    padded = np.pad(region, 1).astype(np.int8)
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in zip(*np.nonzero(np.diff(padded, axis=0)[:, 1:-1]), strict=True):
        down = padded[y, x + 1] == 0  # the region is below this horizontal edge
        start, end = ((x, y), (x + 1, y)) if down else ((x + 1, y), (x, y))
        edges.setdefault((int(start[0]), int(start[1])), []).append((int(end[0]), int(end[1])))
    for y, x in zip(*np.nonzero(np.diff(padded, axis=1)[1:-1]), strict=True):
        right = padded[y + 1, x] == 0  # the region is to the right of this vertical edge
        start, end = ((x, y + 1), (x, y)) if right else ((x, y), (x, y + 1))
        edges.setdefault((int(start[0]), int(start[1])), []).append((int(end[0]), int(end[1])))
    loops = []
    while edges:
        start = next(iter(edges))
        loop, point = [], start
        while True:
            loop.append(point)
            point = _follow(edges, point)
            if point == start:
                break
        loops.append(_corners(loop))
    return loops


def _follow(edges: dict[tuple[int, int], list[tuple[int, int]]], point: tuple[int, int]) -> tuple[int, int]:
    """Remove an edge that begins at `point`, and return its end."""
    ends = edges[point]
    end = ends.pop()
    if not ends:
        del edges[point]
    return end


def _corners(loop: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the points at which a loop changes direction."""
    return [
        point
        for before, point, after in zip([loop[-1], *loop[:-1]], loop, [*loop[1:], loop[0]], strict=True)
        if (before[0] == point[0]) != (point[0] == after[0])
    ]


def encode_runs(mask: Mask) -> list[int]:
    """Return the lengths of runs of a mask in column-major order; the first run is outside and can be 0."""
    flat = mask.ravel(order="F")
    ends = np.append(np.flatnonzero(np.diff(flat)) + 1, flat.size)
    runs = np.diff(ends, prepend=0).tolist()
    return [0, *runs] if flat[0] else list(runs)


def decode_runs(runs: Sequence[int], height: int, width: int) -> Mask:
    """Return the mask (height, width) of `encode_runs`.

    Raises:
        ValueError: the runs do not cover exactly height * width pixels.
    """
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"the runs cover {sum(runs)} pixels, the image has {height * width}")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape((height, width), order="F")


def pack_runs(runs: Sequence[int]) -> str:
    """Return runs in COCO's compressed text: differences to the last run but one, in groups of five bits."""
    text = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            group = value & 0x1F
            value >>= 5
            more = value != (-1 if group & 0x10 else 0)
            text.append(chr((group | 0x20 * more) + 48))
    return "".join(text)


def unpack_runs(text: str) -> list[int]:
    """Return the runs of `pack_runs`.

    Raises:
        ValueError: the text has another character or ends early.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        group = ord(letter) - 48
        if not 0 <= group < 64:
            raise ValueError(f"{letter!r} is no character of compressed runs")
        value |= (group & 0x1F) << shift
        shift += 5
        if not group & 0x20:
            value -= (group & 0x10) << (shift - 4)
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("the compressed runs end early")
    return runs
