"""How far two sets of images, or images of them, are apart, told from their features (N, D).

All distances depend on what the features are: only values from one model can be compared.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from inandout.errors import InputError

Features = npt.NDArray[np.floating[Any]]
"""(N, D), a row an image."""
_Floats = npt.NDArray[np.float64]

FEWEST = 10
"""Images that a set must have; a spread over halves of fewer says nothing."""
ROUNDS = 100
"""Pairs of subsets that the kernel distance is a mean over."""
LARGEST = 1000
"""Images in a subset, at most (Binkowski 2018)."""


class KernelDistance(NamedTuple):
    """Squared maximum mean discrepancy over subsets."""

    mean: float
    """0 for two draws from one distribution, and then as often below as above it."""
    spread: float
    """Standard deviation over subsets; of halves it is about the standard error of `mean` (delete-half jackknife)."""


def kernel_distance(first: Features, second: Features, seed: int) -> KernelDistance:
    """Kernel inception distance (Binkowski 2018, section 4): unbiased whatever the number of images.

    Squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, over `ROUNDS` pairs of random halves of the sets,
    `LARGEST` images at most in each, drawn by `seed`.

    Raises:
        InputError: a set has less than `FEWEST` images, a feature is not finite, or the sets differ in D.
    """
    _check(first, second)
    rng = np.random.default_rng(seed)
    sets = [features.astype(np.float64) for features in (first, second)]
    sizes = [min(len(features) // 2, LARGEST) for features in sets]
    values = []
    for _ in range(ROUNDS):
        drawn = [
            features[rng.choice(len(features), size, replace=False)] for features, size in zip(sets, sizes, strict=True)
        ]
        values.append(_squared_discrepancy(*drawn))
    return KernelDistance(float(np.mean(values)), float(np.std(values, ddof=1)))


def frechet_distance(first: Features, second: Features) -> float:
    """Squared Frechet distance of the two normal distributions with the sets' means and covariances (Heusel 2017).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). Its bias is upward and large with few images, of the order of
    tr(C) / N and more where N is less than D: two draws from one distribution are far from 0. Compare it only between
    sets of the same N, and trust `kernel_distance` where they disagree.

    With C1 = A'A and C2 = B'B the last trace is the sum of the singular values of AB', which needs neither a matrix
    square root nor covariances of full rank.

    Raises:
        InputError: as `kernel_distance`.
    """
    _check(first, second)
    (mean1, root1), (mean2, root2) = _mean_and_root(first), _mean_and_root(second)
    common = np.linalg.svd(root1 @ root2.T, compute_uv=False).sum()
    apart = np.square(mean1 - mean2).sum() + np.square(root1).sum() + np.square(root2).sum() - 2 * common
    return max(float(apart), 0.0)  # rounding


def nearest(ones: Features, others: Features) -> npt.NDArray[np.float64]:
    """Euclidean distance (N,) from each of `ones` (N, D) to the nearest of `others` (M, D), M at least 1."""
    distances: npt.NDArray[np.float64] = cdist(ones, others).min(axis=1)
    return distances


def _squared_discrepancy(first: _Floats, second: _Floats) -> float:
    """The unbiased estimate (Gretton 2012, lemma 6): an image is not compared with itself."""
    return _mean_of_pairs(first) + _mean_of_pairs(second) - 2 * float(_kernel(first, second).mean())


def _mean_of_pairs(features: _Floats) -> float:
    """Mean kernel of two different images of one set."""
    kernel = _kernel(features, features)
    return float((kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)))


def _kernel(first: _Floats, second: _Floats) -> _Floats:
    values: _Floats = (first @ second.T / first.shape[1] + 1) ** 3
    return values


def _mean_and_root(features: Features) -> tuple[_Floats, _Floats]:
    """Mean (D,), and a matrix (min(N, D), D) whose transpose times itself is the covariance."""
    exact = features.astype(np.float64)
    mean = exact.mean(axis=0)
    return mean, np.linalg.qr((exact - mean) / np.sqrt(len(exact) - 1)).R


def _check(first: Features, second: Features) -> None:
    if min(len(first), len(second)) < FEWEST:
        raise InputError(
            f"sets of {len(first)} and {len(second)} images cannot be compared; each needs {FEWEST} or more"
        )
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"{first.shape[1]} and {second.shape[1]} features an image cannot be compared; take both from one model"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("some features are NaN or infinite: the model is broken; train it again with a lower lr")
