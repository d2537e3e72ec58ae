"""MLflow runs: made, found, reused, and read."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run

from inandout.data.manifest import Sample
from inandout.errors import InputError
from inandout.fingerprints import Identity, code_fingerprint
from inandout.processes import this_process
from inandout.tracking.logging import log_dataset, log_options
from inandout.tracking.store import EXPERIMENT, LOCATION, PROCESS_TAG, stage_lock

WEIGHTS = "classifier.safetensors"
"""Artifact of a `classify` run with the ResNet-50's state dict, which its `weights` takes, too: a `pt2` can neither be
trained on nor looked into."""


STAGE = "inandout.stage"
"""Tag of a run: the entry point that opened it."""


FINGERPRINT = "inandout.fingerprint"
"""Tag of a finished run: identity of its result, see `stage_fingerprint`."""


_REUSED = "inandout.reused"
"""Tag of a run: the run whose result it took."""


def current_commit() -> str:
    """Git commit of the code, as MLflow found it for the active run; "" if it found none, or there is no run."""
    run = mlflow.active_run()
    return str(run.data.tags.get("mlflow.source.git.commit", "")) if run else ""


def run_stage(
    identity: Identity, name: str, data: str, samples: Sequence[Sample], work: Callable[[Path], None]
) -> Run:  # fmt: skip
    """The finished run that holds a result: found, where it was made before, or made now.

    Args:
        identity: what the result depends on; `data`, among its inputs, is the fingerprint of the data set.
        name: what the run is called in the UI.
        data: name of the data set.
        samples: the data set, to be logged.
        work: makes and logs the result. Its folder is its own while it runs; it goes when all went well, and stays with
            what a resume needs when it did not.
    """
    stage, key = identity.stage, identity.fingerprint
    values = identity.config.flat() | {"data": data}
    fresh = bool(values["fresh"])
    with stage_lock(key, fresh) as folder:
        found = None if fresh else find_finished(key)
        if found is not None:
            record_reuse(stage, values, found)
            return found
        with open_run(stage, values, key, name) as run:
            mlflow.set_tag("inandout.code", code_fingerprint(identity.module))
            log_dataset(data, identity.inputs["data"], samples)
            work(folder)
    print(f"{stage}: run {run.info.run_id}", file=sys.stderr)
    return mlflow.get_run(run.info.run_id)


@contextmanager
def open_run(
    stage: str, values: Mapping[str, Any], fingerprint: str, name: str, run_id: str | None = None
) -> Iterator[Run]:  # fmt: skip
    """A run of one stage, below the active one, or that of `nested_under`; closed as FINISHED, FAILED or KILLED.

    `values` are the options of the resolved configuration.
    Under `mlflow run` the first run opened is the one that was started from outside. With `run_id` that one goes on.
    """
    active, location = mlflow.active_run(), LOCATION.get()
    experiment, parent = (location.experiment_id, location.run_id) if location and not active else (None, None)
    run = mlflow.start_run(
        run_id, run_name=name, nested=active is not None, experiment_id=experiment, parent_run_id=parent
    )  # fmt: skip
    try:
        _refuse_proxied_artifacts(run)
        mlflow.set_tags({STAGE: stage, PROCESS_TAG: this_process()})
        log_options(values)
        started = time.monotonic()
        yield run
        mlflow.log_metric("seconds", time.monotonic() - started)
        mlflow.set_tag(FINGERPRINT, fingerprint)
    except (KeyboardInterrupt, SystemExit):
        mlflow.end_run("KILLED")
        raise
    except BaseException:
        mlflow.end_run("FAILED")
        raise
    mlflow.end_run()


def find_finished(fingerprint: str) -> Run | None:
    """The newest finished run with this fingerprint, in any experiment."""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = f"tags.`{FINGERPRINT}` = '{fingerprint}' and attributes.status = 'FINISHED'"
    runs = client.search_runs(experiments, wanted, order_by=["attributes.end_time DESC"], max_results=1)
    return runs[0] if runs else None


def record_reuse(stage: str, values: Mapping[str, Any], found: Run) -> None:
    """Say that `found` is the result.

    A run that `mlflow run` opened for this stage gets the metrics of the found one and a pointer to it.
    """
    print(f"{stage}: reused run {found.info.run_id}", file=sys.stderr)
    if "MLFLOW_RUN_ID" in os.environ and mlflow.active_run() is None:
        with mlflow.start_run():
            mlflow.set_tags({STAGE: stage, _REUSED: found.info.run_id})
            log_options(values)
            mlflow.log_metrics(found.data.metrics)


def find_run(run_id: str) -> Run:
    """The run that holds the result of the run with this id; see `original_run`."""
    return original_run(mlflow.get_run(run_id))


def original_run(run: Run) -> Run:
    """The run that holds a result: this one, or the one that it was found in."""
    reused = run.data.tags.get(_REUSED)
    return mlflow.get_run(reused) if reused else run


def artifact_folder(run_id: str, name: str) -> Path:
    """Local copy, or the original where it is local, of an artifact of `find_run`."""
    try:
        where = find_run(run_id).info.artifact_uri  # by run id MLflow copies local files, too, and keeps them
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{where}/{name}"))
    except (mlflow.MlflowException, OSError) as error:
        raise InputError(f"{run_id}: no run with an artifact {name!r} ({error})") from error


def read_config(run_id: str) -> dict[str, Any]:
    """What `log_config` wrote for the run of `find_run`."""
    config: dict[str, Any] = json.loads(artifact_folder(run_id, "config.json").read_text(encoding="utf-8"))
    return config


def artifact_names(run_id: str) -> set[str]:
    """What lies at the top of the artifacts of `find_run`."""
    return {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(find_run(run_id).info.run_id)}


def _refuse_proxied_artifacts(run: Run) -> None:
    """A store that `mlflow ui` made first gives its Default experiment an address that only a server can write to."""
    proxied = (run.info.artifact_uri or "").startswith("mlflow-artifacts:")
    if proxied and not mlflow.get_tracking_uri().startswith("http"):
        raise InputError(
            "this experiment was made by `mlflow ui` and stores artifacts through a server; add "
            f"`--experiment-name {EXPERIMENT}` to mlflow run, or set MLFLOW_EXPERIMENT_NAME"
        )
