"""Distances between sets of images, and between single images, in a feature space.

Distances are comparable only between features of the same model.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from inandout.errors import InputError

Features = npt.NDArray[np.floating[Any]]
"""(N, D), one row per image."""
_Floats = npt.NDArray[np.float64]

FEWEST = 10
"""Minimum number of images in a set; the spread over halves of fewer images is meaningless."""
ROUNDS = 100
"""Number of subset pairs over which the kernel distance is averaged."""
MAX_SUBSET = 1000
"""Maximum number of images in a subset (Binkowski 2018)."""


class KernelDistance(NamedTuple):
    """Squared maximum mean discrepancy over subsets."""

    mean: float
    """0 in expectation for two samples of one distribution, so single values can be negative."""
    spread: float
    """Standard deviation over subsets; for halves, about the standard error of `mean` (delete-half jackknife)."""


def kernel_distance(first: Features, second: Features, seed: int) -> KernelDistance:
    """Return the kernel inception distance (Binkowski 2018, section 4), which is unbiased for any number of images.

    It is the squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, averaged over `ROUNDS` pairs of random
    halves of the sets, each with at most `MAX_SUBSET` images; `seed` determines the halves.

    Raises:
        InputError: a set has fewer than `FEWEST` images, a feature is not finite, or the sets differ in D.
    """
    _check(first, second)
    rng = np.random.default_rng(seed)
    sets = [features.astype(np.float64) for features in (first, second)]
    sizes = [min(len(features) // 2, MAX_SUBSET) for features in sets]
    values = []
    for _ in range(ROUNDS):
        subsets = [
            features[rng.choice(len(features), size, replace=False)] for features, size in zip(sets, sizes, strict=True)
        ]
        values.append(_squared_discrepancy(*subsets))
    return KernelDistance(float(np.mean(values)), float(np.std(values, ddof=1)))


def frechet_distance(first: Features, second: Features) -> float:
    """Return the squared Frechet distance between normal distributions fitted to the two sets (Heusel 2017).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The estimate is biased upward by about tr(C) / N, and more if N < D:
    two samples of one distribution are far from 0. Compare it only between sets of equal N, and trust
    `kernel_distance` if they disagree.

    With C1 = A'A and C2 = B'B, the last trace is the sum of the singular values of AB', which needs neither a matrix
    square root nor covariances of full rank.

    Raises:
        InputError: see `kernel_distance`.
    """
    _check(first, second)
    (mean1, root1), (mean2, root2) = _mean_and_root(first), _mean_and_root(second)
    cross = np.linalg.svd(root1 @ root2.T, compute_uv=False).sum()
    distance = np.square(mean1 - mean2).sum() + np.square(root1).sum() + np.square(root2).sum() - 2 * cross
    return max(float(distance), 0.0)  # rounding can make it negative


def nearest(queries: Features, references: Features) -> npt.NDArray[np.float64]:
    """Return the Euclidean distance (N,) of each query (N, D) to the nearest of `references` (M, D), M >= 1."""
    distances: npt.NDArray[np.float64] = cdist(queries, references).min(axis=1)
    return distances


def _squared_discrepancy(first: _Floats, second: _Floats) -> float:
    """Return the unbiased estimate (Gretton 2012, lemma 6), which excludes pairs of an image with itself."""
    return _mean_of_pairs(first) + _mean_of_pairs(second) - 2 * float(_kernel(first, second).mean())


def _mean_of_pairs(features: _Floats) -> float:
    """Return the mean kernel over pairs of different images of one set."""
    kernel = _kernel(features, features)
    return float((kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)))


def _kernel(first: _Floats, second: _Floats) -> _Floats:
    values: _Floats = (first @ second.T / first.shape[1] + 1) ** 3
    return values


def _mean_and_root(features: Features) -> tuple[_Floats, _Floats]:
    """Return the mean (D,) and a matrix R (min(N, D), D) with R'R equal to the covariance."""
    features64 = features.astype(np.float64)
    mean = features64.mean(axis=0)
    return mean, np.linalg.qr((features64 - mean) / np.sqrt(len(features64) - 1)).R


def _check(first: Features, second: Features) -> None:
    if min(len(first), len(second)) < FEWEST:
        raise InputError(
            f"sets of {len(first)} and {len(second)} images are too small to compare; each needs {FEWEST} or more"
        )
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"sets with {first.shape[1]} and {second.shape[1]} features per image cannot be compared; use one model"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("some features are NaN or infinite because the model diverged; train it again with a lower lr")
