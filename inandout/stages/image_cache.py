"""Cache of generated images beside the database, shared by all runs and extended on demand."""

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
    """Return the first `n` images of an endless sequence; generate missing ones and log their number.

    Args:
        cache_key: JSON-compatible; everything that the sequence depends on except `n`, with `computed_by` of its code.
        n: number of images.
        generator: see `fill_pool`.
        batch_size: images generated at once.
        training: images that must not be reproduced; None if images are inpainted on them.
        name: prefix of the metric, and label of the progress bar.

    Raises:
        TooManyRejectedError: see `fill_pool`.
    """
    folder = generated_folder(cache_key)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        state = fill_pool(folder, n, generator, batch_size, training, name)
    if mlflow.active_run():  # only the main process of `accelerate launch` has one; log_metric would open one
        mlflow.log_metric(f"{name}_drawn", state.drawn)
    return state


def generated_folder(cache_key: Sequence[object]) -> Path:
    """Return the cache folder of a sequence of images."""
    key = hashlib.sha256(json.dumps(cache_key).encode()).hexdigest()[:32]
    return state_folder() / "generated" / key
