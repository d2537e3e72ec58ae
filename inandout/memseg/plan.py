"""Which negative, and which seed, each synthetic anomaly is made from."""

import numpy as np

from inandout.errors import InputError

_NEGATIVES, _SEEDS = 0, 1
"""Two streams of random numbers of one seed: the order of the negatives, and the seeds of the images."""


def plan(n_negatives: int, n: int, seed: int) -> list[tuple[int, int]]:
    """Choose negatives and seeds for `n` images: a list of (index of the negative, seed of the image).

    Each round goes through all negatives once, in an order of its own. Image i does not depend on `n`, so a larger
    pool begins with the smaller one. Seeds are below 2^53, which JSON and floating point hold exactly.

    Raises:
        InputError: no negatives, or a negative `n` or `seed`.
    """
    if n_negatives < 1:
        raise InputError(f"{n_negatives} images without a defect were given; MemSeg needs at least 1 to start from")
    if n < 0 or seed < 0:
        raise InputError(f"n = {n} and seed = {seed} were given; both must be 0 or more")
    rounds = -(-n // n_negatives)
    orders = [np.random.default_rng((seed, _NEGATIVES, r)).permutation(n_negatives) for r in range(rounds)]
    return [(int(orders[i // n_negatives][i % n_negatives]), _image_seed(seed, i)) for i in range(n)]


def _image_seed(seed: int, index: int) -> int:
    return int(np.random.SeedSequence((seed, _SEEDS, index)).generate_state(1, np.uint64)[0] >> np.uint64(11))
