"""Which negative, and which seed, each synthetic anomaly is made from."""

from inandout.errors import InputError
from inandout.seeds import PoolStream, generator, image_seed


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
    orders = [generator(seed, PoolStream.NEGATIVES, r).permutation(n_negatives) for r in range(rounds)]
    return [(int(orders[i // n_negatives][i % n_negatives]), image_seed(seed, PoolStream.MEMSEG, i)) for i in range(n)]
