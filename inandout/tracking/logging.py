"""Log options, datasets and metrics to runs."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Run

from inandout.data.manifest import Sample, write_manifest
from inandout.tracking.views import save_views, view_page


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Make temporary files in `folder`, where the next attempt finds and removes them after a kill.

    Logging a model needs twice its size. TMPDIR has precedence.
    """
    if any(name in os.environ for name in ("TMPDIR", "TEMP", "TMP")):
        yield
        return
    before = tempfile.tempdir
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tempfile.tempdir = str(folder.resolve())
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


def log_options(values: Mapping[str, Any]) -> None:
    """Log the options of the resolved configuration as `config.json` and as parameters.

    `mlflow run` logs its parameters as typed, and MLflow parameters cannot change. Under `mlflow run`, only
    `config.json` therefore has the resolved values of `none`.
    """
    mlflow.log_dict(dict(values), "config.json")
    active = mlflow.active_run()
    assert active is not None
    logged = mlflow.get_run(active.info.run_id).data.params
    mlflow.log_params({key: value for key, value in values.items() if key not in logged})


def pip_requirements() -> list[str]:
    """Return the pip requirements of a logged classifier."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "torchvision", "numpy")]


def log_values(values: Mapping[str, float], step: int | None = None) -> None:
    """Log the metrics of a step in one call, which is much faster in a busy store."""
    mlflow.log_metrics(dict(values), step=step)


def mean_logger(every: int, prefix: str = "") -> Callable[[int, dict[str, float]], None]:
    """Return an `on_step` that logs means over `every` steps, and over remaining steps when `progress` is 1.

    A value that is present in some steps only is averaged over these steps.
    """
    pending: list[dict[str, float]] = []

    def on_step(step: int, values: dict[str, float]) -> None:
        pending.append(values)
        if step % every == 0 or values.get("progress") == 1:
            names = dict.fromkeys(name for each in pending for name in each)
            columns = {name: [each[name] for each in pending if name in each] for name in names}
            log_values({prefix + name: sum(each) / len(each) for name, each in columns.items()}, step=step)
            pending.clear()

    return on_step


def log_dataset(name: str, fingerprint: str, samples: Sequence[Sample]) -> None:
    """Log the dataset as an MLflow input with its fingerprint, and its rows as `manifest.csv`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.csv"
        write_manifest(samples, path)
        mlflow.log_artifact(str(path))
    source = CodeDatasetSource(tags={"manifest": "manifest.csv"})
    dataset = MetaDataset(source, name=Path(name).name[:100], digest=fingerprint)  # type: ignore[abstract]  # it is concrete
    mlflow.log_input(dataset, context="training")


def describe_location(run: Run, view: str = "classifiers") -> str:
    """Return instructions to open the artifacts of a run, and a saved view of its experiment (key of `VIEWS`)."""
    save_views(run.info.experiment_id)
    uri = mlflow.get_tracking_uri()
    page = view_page(run.info.experiment_id, view)
    served = uri.startswith("http")
    compare = f"{uri}/{page}" if served else f"mlflow ui --backend-store-uri {uri}"
    images = f"images: in {run.info.artifact_uri} and in the folders of the other runs next to it"
    then = [] if served else [f"          then open http://127.0.0.1:5000/{page}"]
    return "\n".join([images, f"compare:  {compare}", *then])
