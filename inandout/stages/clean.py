"""Entry point `clean`: show and remove files beside the database that no finished run needs."""

import shutil
from pathlib import Path
from typing import NamedTuple

import mlflow

from inandout.errors import InputError
from inandout.stages.config import CleanConfig
from inandout.tracking.store import connect, state_folder

_REMOVABLE = {
    "work": "files of results that were interrupted; the same command would resume them",
    "generated": "cache of generated images; pools have copies",
    "latents": "cache of encoded images",
}
"""Folders beside the database, and what they hold. Reviews, prompt labs and searches are kept."""


class Leftover(NamedTuple):
    """Files that no finished run needs."""

    path: Path
    what: str
    size: int
    """Bytes."""


def clean(config: CleanConfig) -> None:
    """List files beside the database that no finished run needs, and remove them with `remove`.

    Raises:
        InputError: with `remove`, a run is running, so its files are in use.
    """
    connect()
    found = leftovers()
    for path, what, size in found:
        print(f"{size / 1e6:10.1f} MB  {path}: {what}")
    total = sum(leftover.size for leftover in found) / 1e6
    if not found:
        print("nothing to remove")
    elif not config.remove:
        print(f"{total:10.1f} MB in total; remove them with `python -m inandout clean --remove true`")
    else:
        _refuse_running()
        for leftover in found:
            shutil.rmtree(leftover.path) if leftover.path.is_dir() else leftover.path.unlink()
        print(f"{total:10.1f} MB removed")


def leftovers() -> list[Leftover]:
    """Return everything that `clean` removes, with its size."""
    folder = state_folder()
    paths = [(path, what) for name, what in _REMOVABLE.items() for path in sorted((folder / name).glob("*"))]
    paths += [(path, "database that was never finished") for path in sorted(folder.parent.glob("*.db.unfinished"))]
    return [Leftover(path, what, _size(path)) for path, what in paths]


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _refuse_running() -> None:
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    running = client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=1)
    if running:
        raise InputError(
            f"run {running[0].info.run_id} is running and may use these files; wait for it, or end it in the MLflow UI"
        )
