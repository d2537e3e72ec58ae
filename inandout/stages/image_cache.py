"""Generated pictures that are kept beside the database, for every result that needs the same ones, and more of them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import mlflow
from filelock import FileLock

from inandout.data.images import Picture
from inandout.diffusion.sample.generate import Filled, fill_folder
from inandout.diffusion.sample.rejection_sampling import Make
from inandout.tracking import code_fingerprint, state_folder


def generate(
    asked: Sequence[object], n: int, make: Make, batch_size: int, training: Iterable[Picture] | None, name: str
) -> Filled:  # fmt: skip
    """The first `n` pictures of an endless sequence, made as far as they are not there yet; logs how many that were.

    Args:
        asked: JSON-compatible; everything that the sequence depends on, but for the code and `n`.
        n: pictures wanted.
        make: see `fill`.
        batch_size: pictures that are made at once.
        training: pictures that must not come back; None where pictures are drawn on them.
        name: of the progress bar.

    Raises:
        TooManyRejectedError: see `fill`.
    """
    folder = generated_folder(asked)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        filled = fill_folder(folder, n, make, batch_size, training, name)
    if mlflow.active_run():  # only the main process of `accelerate launch` has one, and none is to be opened here
        mlflow.log_metric(f"{name}_drawn", filled.drawn)
    return filled


def generated_folder(asked: Sequence[object]) -> Path:
    """Where the pictures of a sequence lie, as far as they are there."""
    key = hashlib.sha256(json.dumps([*asked, code_fingerprint()]).encode()).hexdigest()[:32]
    return state_folder() / "generated" / key
