"""Images that show the same thing: copies, re-encoded, flipped, resized or exposed in another way.

How: an image becomes a 32x32 grey thumbnail. What is left of it after the local mean is taken away, divided by the
local contrast, no longer depends on lighting and exposure. Two images are compared by the cosine of the angle between
these, under the better of four flips. What all images of a data set share (edges of the part, the same object in the
same place) says nothing about which of them are the same, and is taken out first.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from inandout.data.images import ImageArray, read_image
from inandout.data.manifest import Sample, digests

SIMILAR = 0.8
"""Similarity from which two images count as near-duplicates.

Measured on 1344 photographs of magnetic tiles, each tile taken about six times under other exposures: precision 1.00
(none of 899,000 pairs of different tiles reaches it, the highest has 0.75), recall 0.43 of the 3,539 pairs of one tile.
Of copies of these photographs that were flipped, resized to 80 %, saved as JPEG of quality 50, changed in gamma (0.7,
1.5), contrast (x 0.6) or brightness (+-20), or several of these at once, all were found; of copies with 2 % cut off
along two sides, only 24 %: crops and shifts are not what this finds.
"""

SIDE = 32
_SIGMA = 1.5
"""Cells of a thumbnail over which the local mean and contrast are taken."""
_FLAT = 0.5
"""Grey levels; a local contrast well below it is not blown up to that of a textured place."""
_ROWS = 512
"""Rows of the similarity matrix that are in memory at once."""
_SHARED_AFTER = 30
"""Number of images at which half of what they share is taken out."""

Thumbnail = npt.NDArray[np.float32]
"""(SIDE, SIDE) grey, 0..255."""
Pairs = npt.NDArray[np.intp]
"""(K, 2) indices i < j of two images, sorted."""

_NO_PART = np.empty((0, SIDE**2 // 4), dtype=np.float32)


class _Shared(NamedTuple):
    """What images have in common."""

    axes: list[npt.NDArray[np.float32]]
    """Its direction, (SIDE²/4,) of unit length, in each of the four parts."""
    weight: float
    """How much of it is to be taken out, 0..1."""


def thumbnail(image: ImageArray) -> Thumbnail:
    """Average an image over a grid of SIDE x SIDE cells."""
    grey = Image.fromarray(image).convert("L").convert("F")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)


def near_duplicates(paths: Sequence[Path], threshold: float = SIMILAR) -> Pairs:
    """Pairs of files that show the same thing; see `similar_pairs`.

    Raises:
        InputError: an image cannot be read.
    """
    with ThreadPoolExecutor() as executor:
        return similar_pairs(list(executor.map(lambda path: thumbnail(read_image(path)), paths)), threshold)


def similar_pairs(thumbnails: Sequence[Thumbnail], threshold: float = SIMILAR) -> Pairs:
    """Pairs of thumbnails whose similarity (-1..1, the best of four flips) is `threshold` or more.

    An image without any structure is similar to none. Memory grows with the number of images and of pairs found.
    """
    found = [np.empty((0, 2), dtype=np.intp)]
    if len(thumbnails) > 1:
        parts = _parts(_structure(np.stack(thumbnails)))
        parts = _without(parts, _shared(parts))
        for start in range(0, len(thumbnails), _ROWS):
            similarity = _similarity([part[start : start + _ROWS] for part in parts], [part[start:] for part in parts])
            found.append(np.argwhere(np.triu(similarity, 1) >= threshold) + start)
    return np.concatenate(found)


class SimilarityIndex:
    """Images that single others are compared with, where they come one after the other.

    What images share is told from `first` alone, so that the similarity of two never depends on what was added since.
    """

    def __init__(self, first: Sequence[Thumbnail]):
        parts = _parts(_structure(np.stack(first))) if first else [_NO_PART] * 4
        self._shared = _shared(parts)
        self._length = len(first)
        self._pages = np.stack(_without(parts, self._shared))

    def __len__(self) -> int:
        return self._length

    def similarities(self, thumbnail: Thumbnail) -> npt.NDArray[np.float32]:
        """(N,) similarity (-1..1, the best of four flips) to each image, in the order in which they came."""
        similar: Thumbnail = _similarity(self._look(thumbnail), self._pages[:, : self._length])[0]
        return similar

    def add(self, thumbnail: Thumbnail) -> None:
        """Put an image after the last one."""
        if self._length == self._pages.shape[1]:
            more = np.empty((4, self._length + 64, self._pages.shape[2]), dtype=np.float32)
            self._pages = np.concatenate([self._pages, more], axis=1)
        self._pages[:, self._length] = np.concatenate(self._look(thumbnail))
        self._length += 1

    def _look(self, thumbnail: Thumbnail) -> list[Thumbnail]:
        return _without(_parts(_structure(thumbnail[None])), self._shared)


def group_near_duplicates(samples: Sequence[Sample], threshold: float = SIMILAR) -> list[Sample]:
    """Give near-duplicates one group, joined with the groups the samples bring.

    A group keeps its declared name (the first in order, where several are joined); a new one is named by content, so
    that the name depends neither on order nor on location. An image that is like no other keeps its empty group.

    Raises:
        InputError: an image cannot be read.
    """
    pairs = near_duplicates([sample.image for sample in samples], threshold)
    members = _components(samples, pairs)
    names = {component: _name([samples[i] for i in rows]) for component, rows in members.items() if len(rows) > 1}
    group_of = {i: names[component] for component, rows in members.items() if len(rows) > 1 for i in rows}
    return [sample.with_(group=group_of.get(i, sample.group)) for i, sample in enumerate(samples)]


def _components(samples: Sequence[Sample], pairs: Pairs) -> dict[int, list[int]]:
    """Rows that are linked by a pair or a declared group, directly or through others."""
    first: dict[str, int] = {}
    declared = [(first.setdefault(sample.group, i), i) for i, sample in enumerate(samples) if sample.group]
    links = np.concatenate([pairs, np.array(declared, dtype=np.intp).reshape(-1, 2)])
    graph = coo_array((np.ones(len(links), dtype=np.bool_), (links[:, 0], links[:, 1])), shape=(len(samples),) * 2)
    members: dict[int, list[int]] = {}
    for i, component in enumerate(connected_components(graph, directed=False)[1].tolist()):
        members.setdefault(component, []).append(i)
    return members


def _name(members: Sequence[Sample]) -> str:
    declared = sorted({sample.group for sample in members} - {""})
    return declared[0] if declared else f"near-{min(digests([sample.image for sample in members]))[:12]}"


def _structure(thumbnails: Thumbnail) -> Thumbnail:
    """(N, SIDE, SIDE) thumbnails without shading and exposure: zero local mean, local contrast about 1, unit norm."""
    blur = (0, _SIGMA, _SIGMA)
    detail = thumbnails - gaussian_filter(thumbnails, blur, mode="nearest")
    contrast = np.sqrt(gaussian_filter(detail**2, blur, mode="nearest"))
    detail /= contrast + _FLAT
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((detail**2).sum(axis=(1, 2), keepdims=True))
    return np.asarray(detail / np.maximum(norm, 1e-3), dtype=np.float32)


def _parts(structure: Thumbnail) -> list[Thumbnail]:
    """Four (N, SIDE²/4) parts: even-even, even-odd, odd-even, odd-odd in y and x.

    A flip only changes the sign of the odd parts, so four flips cost no more than one.
    """
    half = SIDE // 2
    parts: list[Thumbnail] = []
    for y in (np.float32(1), np.float32(-1)):
        rows = (structure + y * structure[:, ::-1])[:, :half]
        for x in (np.float32(1), np.float32(-1)):
            quarter = (rows + x * rows[:, :, ::-1])[:, :, :half] / np.float32(2)
            parts.append(quarter.reshape(len(structure), -1))
    return parts


def _shared(parts: Sequence[Thumbnail]) -> _Shared:
    """What images have in common; of few, the mean is mostly what is their own, so it counts in part only."""
    count = len(parts[0])
    means = [part.sum(axis=0) / max(count, 1) for part in parts]
    return _Shared([mean / max(float(np.linalg.norm(mean)), 1e-6) for mean in means], count / (count + _SHARED_AFTER))


def _without(parts: Sequence[Thumbnail], shared: _Shared) -> list[Thumbnail]:
    """The parts without what the images share, at unit norm again."""
    rest = [part - shared.weight * np.outer(part @ axis, axis) for part, axis in zip(parts, shared.axes, strict=True)]
    norm = np.maximum(np.linalg.norm(np.concatenate(rest, axis=1), axis=1, keepdims=True), 1e-3)
    return [np.asarray(part / norm, dtype=np.float32) for part in rest]


def _similarity(rows: Sequence[Thumbnail], columns: Sequence[Thumbnail] | Thumbnail) -> Thumbnail:
    """(R, C) cosines, each the largest over the four flips."""
    ee, eo, oe, oo = (row @ column.T for row, column in zip(rows, columns, strict=True))
    along_x = np.maximum(ee + eo + oe + oo, ee - eo + oe - oo)
    return np.maximum(along_x, np.maximum(ee + eo - oe - oo, ee - eo - oe + oo))
