"""Generated images that are kept beside the database, for every result that needs the same ones, and more of them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import mlflow
from filelock import FileLock

from inandout.data.images import ImageArray
from inandout.diffusion.sample.generate import PoolState, fill_pool
from inandout.diffusion.sample.rejection_sampling import Generator
from inandout.tracking.store import state_folder


def generate(
    cache_key: Sequence[object],
    n: int,
    generator: Generator,
    batch_size: int,
    training: Iterable[ImageArray] | None,
    name: str,
) -> PoolState:
    """The first `n` images of an endless sequence, made as far as they are not there yet; logs how many that were.

    Args:
        cache_key: JSON-compatible; everything that the sequence depends on but `n`, `computed_by` of its code included.
        n: images wanted.
        generator: see `fill`.
        batch_size: images that are made at once.
        training: images that must not come back; None where images are drawn on them.
        name: of the progress bar.

    Raises:
        TooManyRejectedError: see `fill`.
    """
    folder = generated_folder(cache_key)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        state = fill_pool(folder, n, generator, batch_size, training, name)
    if mlflow.active_run():  # only the main process of `accelerate launch` has one, and none is to be opened here
        mlflow.log_metric(f"{name}_drawn", state.drawn)
    return state


def generated_folder(cache_key: Sequence[object]) -> Path:
    """Where the images of a sequence lie, as far as they are there."""
    key = hashlib.sha256(json.dumps(cache_key).encode()).hexdigest()[:32]
    return state_folder() / "generated" / key
