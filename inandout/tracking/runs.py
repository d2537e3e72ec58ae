"""Open, find, reuse and read MLflow runs."""

import contextlib
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
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from inandout.data.manifest import Sample
from inandout.errors import InputError, causes, is_disk_full
from inandout.fingerprints import Identity, code_fingerprint
from inandout.hardware import explain_memory, is_out_of_memory
from inandout.processes import this_process
from inandout.tracking.descriptions import description_tag
from inandout.tracking.logging import log_dataset, log_options, temporary_files_in
from inandout.tracking.store import EXPERIMENT, LOCATION, PROCESS_TAG, free_reserve, stage_lock

WEIGHTS = "classifier.safetensors"
"""Artifact of `classify`: state dict of the classifier, also accepted by the option `weights`. A logged `pt2` model
cannot be trained further or inspected."""


WEIGHTS_TAG = "inandout.weights"
"""Run tag: digest of the file with the initial weights, or `none` or `imagenet`."""


STAGE = "inandout.stage"
"""Run tag: the entry point that opened the run."""


FINGERPRINT = "inandout.fingerprint"
"""Tag of a finished run: `Identity.fingerprint` of its result."""


SYSTEM_METRICS = "system/"
"""Prefix of the metrics of the machine (CPU, memory, GPU), which MLflow samples every 10 s."""
_FILES = "inandout.files"
"""Tag of a finished run: `count_files`."""


_REUSED = "inandout.reused"
"""Run tag: the run whose result this run reuses."""


def current_commit() -> str:
    """Return the Git commit that MLflow recorded for the active run; "" if there is none."""
    run = mlflow.active_run()
    return str(run.data.tags.get("mlflow.source.git.commit", "")) if run else ""


def run_stage(
    identity: Identity, name: str, data: str, samples: Sequence[Sample], work: Callable[[Path], None]
) -> Run:  # fmt: skip
    """Return the finished run of a result; compute the result if no finished run exists.

    Args:
        identity: what the result depends on; its input `data` is the fingerprint of the dataset.
        name: name of the run in the UI.
        data: name of the dataset.
        samples: the dataset, to be logged.
        work: computes and logs the result, given an exclusive work folder. The folder is deleted on success and kept
            on failure, for a resume.
    """
    stage, key = identity.stage, identity.fingerprint
    values = identity.config.flat() | {"data": data}
    fresh = bool(values["fresh"])
    with stage_lock(key, fresh) as folder:
        found = None if fresh else find_finished(key)
        if found is not None:
            record_reuse(stage, values, found)
            return found
        if any(folder.iterdir()):
            print(f"{stage}: resuming unfinished work", file=sys.stderr)
        with temporary_files_in(folder / "tmp"), open_run(stage, values, key, name) as run:
            mlflow.set_tag("inandout.code", code_fingerprint(identity.module))
            log_dataset(data, identity.inputs["data"], samples)
            work(folder)
    print(f"{stage}: run {run.info.run_id}", file=sys.stderr)
    return mlflow.get_run(run.info.run_id)


@contextmanager
def open_run(
    stage: str, values: Mapping[str, Any], fingerprint: str, name: str, run_id: str | None = None
) -> Iterator[Run]:  # fmt: skip
    """Open a run of a stage; close it as FINISHED, FAILED or KILLED.

    The run is nested under the active run, or under the run of `nested_under`. Under `mlflow run` the first opened run
    is the run that MLflow created.

    Args:
        stage: name of the entry point.
        values: options of the resolved configuration.
        fingerprint: identity of the result, set as a tag when the run finishes.
        name: name of the run in the UI.
        run_id: existing run to resume; None = a new run.
    """
    active, location = mlflow.active_run(), LOCATION.get()
    experiment, parent = (location.experiment_id, location.run_id) if location and not active else (None, None)
    run = mlflow.start_run(
        run_id, run_name=name, nested=active is not None, experiment_id=experiment, parent_run_id=parent,
        tags={STAGE: stage, PROCESS_TAG: this_process()},
    )  # fmt: skip
    try:
        _refuse_proxied_artifacts(run)
        mlflow.set_tags(description_tag(stage, run.info.run_id))
        log_options(values)
        started = time.monotonic()
        yield run
        mlflow.log_metric("seconds", time.monotonic() - started)
        mlflow.set_tag(_FILES, count_files(mlflow.get_run(run.info.run_id)))
        mlflow.set_tag(FINGERPRINT, fingerprint)
        mlflow.end_run()
    except (KeyboardInterrupt, SystemExit):
        _end_run(run.info.run_id, "KILLED")
        raise
    except BaseException as error:
        if any(is_disk_full(each) for each in causes(error)):
            free_reserve()
        _end_run(run.info.run_id, "FAILED")
        if is_out_of_memory(error):
            raise explain_memory(error) from error
        raise


def _end_run(run_id: str, status: str) -> None:
    """End a run that did not finish, even on a full disk; if the store refuses, the next command closes the run."""
    try:
        active = mlflow.active_run()
        if active and active.info.run_id == run_id:
            mlflow.end_run(status)
        else:  # MLflow forgets a run before the store refuses its end
            mlflow.MlflowClient().set_terminated(run_id, status)
    except Exception:  # the reason of the failure is raised, not this one
        free_reserve()
        with contextlib.suppress(Exception):
            mlflow.MlflowClient().set_terminated(run_id, status)


def find_finished(fingerprint: str) -> Run | None:
    """Return the newest finished run with this fingerprint in any experiment whose artifacts exist, or None."""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = f"tags.`{FINGERPRINT}` = '{fingerprint}' and attributes.status = 'FINISHED'"
    runs = client.search_runs(experiments, wanted, order_by=["attributes.end_time DESC"], max_results=100)
    complete = next((run for run in runs if _has_artifacts(run)), None)
    if runs and complete is None:
        print(
            f"run {runs[0].info.run_id} has this result, but files are missing in {runs[0].info.artifact_uri}; "
            "it is computed again",
            file=sys.stderr,
        )
    return complete


def _has_artifacts(run: Run) -> bool:
    """Return whether the artifacts of a finished run were not removed since."""
    return count_files(run) >= int(run.data.tags.get(_FILES, 1))


def count_files(run: Run) -> int:
    """Return the number of artifacts of a run and of its models; of a remote store, of their top folders."""
    client = mlflow.MlflowClient()
    models = run.outputs.model_outputs if run.outputs else []
    try:
        locations = [client.get_logged_model(model.model_id).artifact_location for model in models]
        locations.append(run.info.artifact_uri)
        folders = [local_file_uri_to_path(where) for where in locations if is_local_uri(where)]  # type: ignore[no-untyped-call]
        if len(folders) < len(locations):
            return len(client.list_artifacts(run.info.run_id))
    except mlflow.MlflowException:
        return 0
    return sum(len(files) for folder in folders for _, _, files in os.walk(folder))


def record_reuse(stage: str, values: Mapping[str, Any], found: Run) -> None:
    """Report that the result is the one of run `found`.

    A run that `mlflow run` created for this stage gets the metrics of `found` and a tag with its id.
    """
    print(f"{stage}: reused run {found.info.run_id}", file=sys.stderr)
    if "MLFLOW_RUN_ID" in os.environ and mlflow.active_run() is None:
        with mlflow.start_run():
            mlflow.set_tags({STAGE: stage, _REUSED: found.info.run_id})
            log_options(values)
            mlflow.log_metrics(
                {name: value for name, value in found.data.metrics.items() if not name.startswith(SYSTEM_METRICS)}
            )


def find_run(run_id: str) -> Run:
    """Return `original_run` of the run with this id."""
    return original_run(mlflow.get_run(run_id))


def original_run(run: Run) -> Run:
    """Return the run that computed the result of `run`: itself, or the run that it reuses."""
    reused = run.data.tags.get(_REUSED)
    return mlflow.get_run(reused) if reused else run


def artifact_folder(run_id: str, name: str) -> Path:
    """Return the local path of an artifact of `find_run(run_id)`; download it if the store is remote."""
    try:
        where = find_run(run_id).info.artifact_uri  # given a run id, MLflow would copy local files
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{where}/{name}"))
    except (mlflow.MlflowException, OSError) as error:
        raise InputError(f"{run_id}: is not a run with an artifact {name!r} ({error}); give another run id") from error


def read_config(run_id: str) -> dict[str, Any]:
    """Read the options that `log_options` logged for `find_run(run_id)`."""
    config: dict[str, Any] = json.loads(artifact_folder(run_id, "config.json").read_text(encoding="utf-8"))
    return config


def artifact_names(run_id: str) -> set[str]:
    """Return the names of the top-level artifacts of `find_run(run_id)`."""
    return {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(find_run(run_id).info.run_id)}


def _refuse_proxied_artifacts(run: Run) -> None:
    """Raise InputError if artifacts need a server, as in the Default experiment of a store created by `mlflow ui`."""
    proxied = (run.info.artifact_uri or "").startswith("mlflow-artifacts:")
    if proxied and not mlflow.get_tracking_uri().startswith("http"):
        raise InputError(
            "this experiment was created by `mlflow ui` and needs a server for artifacts; add "
            f"`--experiment-name {EXPERIMENT}` to mlflow run, or set MLFLOW_EXPERIMENT_NAME"
        )
