"""Negative and seed of each synthetic anomaly."""

import numpy as np
import numpy.typing as npt

from inandout.errors import InputError
from inandout.seeds import PoolStream, generator, image_seed


def plan(n_negatives: int, n: int, seed: int) -> list[tuple[int, int]]:
    """Choose negatives and seeds for `n` images, as a list of (index of the negative, seed of the image).

    Each round uses every negative once, in a new random order. Image i does not depend on `n`, so a smaller pool is a
    prefix of a larger one. Seeds are below 2^53, so that JSON and float64 represent them exactly.

    Raises:
        InputError: there are no negatives, or `n` or `seed` is negative.
    """
    if n_negatives < 1:
        raise InputError(f"there are {n_negatives} images without a defect; MemSeg needs at least 1")
    if n < 0 or seed < 0:
        raise InputError(f"n = {n} and seed = {seed}; both must be 0 or more")
    orders = [_order(n_negatives, round_, seed) for round_ in range(-(-n // n_negatives))]
    return [(int(orders[i // n_negatives][i % n_negatives]), image_seed(seed, PoolStream.MEMSEG, i)) for i in range(n)]


def negative_of(n_negatives: int, number: int, seed: int) -> int:
    """Return the index of the negative of image `number` of `plan`, without the rest of the plan."""
    round_, place = divmod(number, n_negatives)
    return int(_order(n_negatives, round_, seed)[place])


def _order(n_negatives: int, round_: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the order (n_negatives,) in which a round uses the negatives."""
    return generator(seed, PoolStream.NEGATIVES, round_).permutation(n_negatives)
