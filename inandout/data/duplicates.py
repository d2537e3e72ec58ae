"""Near-duplicate images: copies that were re-encoded, flipped, resized or exposed differently.

Each image is reduced to a 32x32 grey thumbnail. Subtracting the local mean and dividing by the local contrast removes
lighting and exposure. The similarity of two images is the cosine similarity of the results, maximised over four flips.
Structure common to all images of a dataset (edges of the part, the same object in the same place) carries no
information about duplicates, so the mean direction is projected out first.
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
from inandout.errors import InputError

SIMILAR = 0.8
"""Minimum similarity of near-duplicates.

Measured on 1344 photographs of magnetic tiles, each tile taken about six times under different exposures: precision
1.00 (of 899,000 pairs of different tiles, the most similar has 0.75), recall 0.43 of the 3,539 pairs of the same tile.
All copies of these photographs that were flipped, resized to 80 %, saved as JPEG of quality 50, changed in gamma (0.7,
1.5), contrast (x 0.6) or brightness (+-20), or several of these at once, were found. Crops and shifts are not detected
reliably: with 2 % cut off along two sides, only 24 % of the copies were found.
"""

SIDE = 32
_SIGMA = 1.5
"""Standard deviation of the Gaussian window for local mean and contrast, in thumbnail cells."""
_CONTRAST_FLOOR = 0.5
"""Grey levels added to the local contrast, so that flat regions are not amplified."""
_BLOCK_ROWS = 512
"""Rows of the similarity matrix per block."""
_SHARED_HALF = 30
"""Number of images at which half of the shared structure is removed."""

Thumbnail = npt.NDArray[np.float32]
"""(SIDE, SIDE) grey, 0..255."""
Pairs = npt.NDArray[np.intp]
"""(K, 2) indices i < j of two images, sorted."""

_NO_PART = np.empty((0, SIDE**2 // 4), dtype=np.float32)


class _Shared(NamedTuple):
    """Structure shared by all images."""

    axes: list[npt.NDArray[np.float32]]
    """Unit vector (SIDE²/4,) for each of the four parts."""
    weight: float
    """Fraction to remove, 0..1."""


def thumbnail(image: ImageArray) -> Thumbnail:
    """Average an image over a grid of SIDE x SIDE cells."""
    grey = Image.fromarray(image).convert("L").convert("F")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)


def near_duplicates(paths: Sequence[Path], threshold: float = SIMILAR) -> Pairs:
    """Return pairs of near-duplicate files; see `similar_pairs`.

    Raises:
        InputError: an image cannot be read.
    """
    with ThreadPoolExecutor() as executor:
        return similar_pairs(list(executor.map(lambda path: thumbnail(read_image(path)), paths)), threshold)


def similar_pairs(thumbnails: Sequence[Thumbnail], threshold: float = SIMILAR) -> Pairs:
    """Return pairs of thumbnails whose similarity (-1..1, maximum over four flips) is at least `threshold`.

    Flat images match nothing. Memory is linear in the number of images and of returned pairs.
    """
    found = [np.empty((0, 2), dtype=np.intp)]
    if len(thumbnails) > 1:
        parts = _parts(_structure(np.stack(thumbnails)))
        parts = _remove_shared(parts, _shared(parts))
        for start in range(0, len(thumbnails), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            similarity = _similarity([part[block] for part in parts], [part[start:] for part in parts])
            found.append(np.argwhere(np.triu(similarity, 1) >= threshold) + start)
    return np.concatenate(found)


class SimilarityIndex:
    """Incremental index of images for similarity queries.

    The shared structure is estimated from `first` only, so later additions do not change similarities.
    """

    def __init__(self, first: Sequence[Thumbnail]):
        parts = _parts(_structure(np.stack(first))) if first else [_NO_PART] * 4
        self._shared = _shared(parts)
        self._length = len(first)
        self._embeddings = np.stack(_remove_shared(parts, self._shared))

    def __len__(self) -> int:
        return self._length

    def similarities(self, thumbnail: Thumbnail) -> npt.NDArray[np.float32]:
        """Return similarities (N,) to each indexed image, -1..1, maximum over four flips, in order of insertion."""
        similarities: Thumbnail = _similarity(self._embed(thumbnail), self._embeddings[:, : self._length])[0]
        return similarities

    def add(self, thumbnail: Thumbnail) -> None:
        """Append an image."""
        if self._length == self._embeddings.shape[1]:
            more = np.empty((4, self._length + 64, self._embeddings.shape[2]), dtype=np.float32)
            self._embeddings = np.concatenate([self._embeddings, more], axis=1)
        self._embeddings[:, self._length] = np.concatenate(self._embed(thumbnail))
        self._length += 1

    def _embed(self, thumbnail: Thumbnail) -> list[Thumbnail]:
        return _remove_shared(_parts(_structure(thumbnail[None])), self._shared)


def group_near_duplicates(samples: Sequence[Sample], threshold: float = SIMILAR) -> list[Sample]:
    """Assign near-duplicates to one group and merge it with their declared groups.

    A merged group takes the alphabetically first of its declared names. A new group is named by content, independent of
    order and location. Images without near-duplicates keep their group.

    Raises:
        InputError: an image cannot be read.
    """
    pairs = near_duplicates([sample.image for sample in samples], threshold)
    members = _components(samples, pairs)
    names = {component: _name([samples[i] for i in rows]) for component, rows in members.items() if len(rows) > 1}
    group_of = {i: names[component] for component, rows in members.items() if len(rows) > 1 for i in rows}
    return [sample.with_(group=group_of.get(i, sample.group)) for i, sample in enumerate(samples)]


def refuse_copies(held_out: Sequence[Sample], images: Sequence[Sample]) -> None:
    """Raise an InputError if one of `images` is a near-duplicate of a validation or test image."""
    paths = [sample.image for sample in (*held_out, *images)]
    for first, second in near_duplicates(paths) if images else []:
        if first < len(held_out) <= second:
            raise InputError(
                f"{paths[second]}: is a near-duplicate of {paths[first]}, which is held out for validation or test; "
                "remove it from the pool"
            )


def _components(samples: Sequence[Sample], pairs: Pairs) -> dict[int, list[int]]:
    """Connected components of the graph whose edges are the pairs and the declared groups."""
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
    """Normalise (N, SIDE, SIDE) thumbnails to zero local mean, local contrast of about 1 and unit norm."""
    blur = (0, _SIGMA, _SIGMA)
    detail = thumbnails - gaussian_filter(thumbnails, blur, mode="nearest")
    contrast = np.sqrt(gaussian_filter(detail**2, blur, mode="nearest"))
    detail /= contrast + _CONTRAST_FLOOR
    detail -= detail.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((detail**2).sum(axis=(1, 2), keepdims=True))
    return np.asarray(detail / np.maximum(norm, 1e-3), dtype=np.float32)


def _parts(structure: Thumbnail) -> list[Thumbnail]:
    """Split into four (N, SIDE²/4) parts: even-even, even-odd, odd-even, odd-odd in y and x.

    A flip only changes the sign of the odd parts, so one product of each part covers all four flips.
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
    """Estimate the shared structure; with few images the mean is dominated by each image, so its weight is lower."""
    count = len(parts[0])
    means = [part.sum(axis=0) / max(count, 1) for part in parts]
    return _Shared([mean / max(float(np.linalg.norm(mean)), 1e-6) for mean in means], count / (count + _SHARED_HALF))


def _remove_shared(parts: Sequence[Thumbnail], shared: _Shared) -> list[Thumbnail]:
    """Remove the shared structure and normalise to unit norm."""
    rest = [part - shared.weight * np.outer(part @ axis, axis) for part, axis in zip(parts, shared.axes, strict=True)]
    norm = np.maximum(np.linalg.norm(np.concatenate(rest, axis=1), axis=1, keepdims=True), 1e-3)
    return [np.asarray(part / norm, dtype=np.float32) for part in rest]


def _similarity(rows: Sequence[Thumbnail], columns: Sequence[Thumbnail] | Thumbnail) -> Thumbnail:
    """(R, C) cosine similarities, maximum over the four flips."""
    ee, eo, oe, oo = (row @ column.T for row, column in zip(rows, columns, strict=True))
    along_x = np.maximum(ee + eo + oe + oo, ee - eo + oe - oo)
    return np.maximum(along_x, np.maximum(ee + eo - oe - oo, ee - eo - oe + oo))
