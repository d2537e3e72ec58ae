"""Tracking store: experiment, state folder, locks, and runs of other processes."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import mlflow
from filelock import FileLock

from inandout.errors import InputError
from inandout.processes import is_dead, this_process

EXPERIMENT = "inandout"
"""Default experiment."""


PROCESS_TAG = "inandout.process"
"""Run tag: the process that executes the run."""


class RunLocation(NamedTuple):
    """Location of the runs of this process, for its worker processes."""

    store: str
    """Tracking URI."""
    folder: str
    """Working directory, the base of relative paths."""
    experiment_id: str
    run_id: str
    """Parent of the runs of workers."""


LOCATION: ContextVar[RunLocation | None] = ContextVar("location", default=None)


def run_location() -> RunLocation:
    """Return the location of the active run."""
    run = mlflow.active_run()
    assert run is not None
    return RunLocation(mlflow.get_tracking_uri(), str(Path.cwd()), run.info.experiment_id, run.info.run_id)


@contextmanager
def nested_under(location: RunLocation) -> Iterator[None]:
    """Nest runs under the run of `location`, in any process on any machine.

    Raises:
        InputError: the working directory of `location` does not exist on this machine.
    """
    try:
        os.chdir(location.folder)
    except OSError as error:
        raise InputError(f"{location.folder}: does not exist on every machine; start from a shared folder") from error
    if mlflow.get_tracking_uri() != location.store:
        mlflow.set_tracking_uri(location.store)
    token = LOCATION.set(location)
    try:
        yield
    finally:
        LOCATION.reset(token)


def state_folder() -> Path:
    """Return the folder of locks, caches and unfinished work: beside the database, or in the working directory."""
    uri = mlflow.get_tracking_uri()
    return (Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:///") else Path()) / ".inandout"


@contextmanager
def stage_lock(fingerprint: str, fresh: bool) -> Iterator[Path]:
    """Lock a result and yield its work folder; other processes wait for the lock.

    With `fresh` the files of an unfinished run are deleted first. The folder is deleted on success.
    """
    folder = state_folder() / "work" / fingerprint
    locks = state_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{fingerprint}.lock")
    if lock_is_taken(lock):
        print("waiting for another process that computes the same result", file=sys.stderr)
    with lock:
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        shutil.rmtree(folder)


def lock_is_taken(lock: FileLock) -> bool:
    """Return whether another process holds the lock."""
    try:
        with lock.acquire(timeout=0):
            return False
    except TimeoutError:
        return True


def connect() -> None:
    """Prepare the tracking store, set the experiment, and close runs of dead processes as KILLED.

    The lock makes concurrent first use of a database safe; without it MLflow fails in all processes except one.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar per artifact
    os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    state = state_folder()
    state.mkdir(parents=True, exist_ok=True)
    with FileLock(state / "store.lock"):
        client = mlflow.MlflowClient()
        experiments = client.search_experiments()
        if "MLFLOW_RUN_ID" not in os.environ and mlflow.active_run() is None and LOCATION.get() is None:
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
        elif "MLFLOW_RUN_ID" in os.environ:
            client.set_tag(os.environ["MLFLOW_RUN_ID"], PROCESS_TAG, this_process())
        for run in client.search_runs([e.experiment_id for e in experiments], "attributes.status = 'RUNNING'"):
            if is_dead(run.data.tags.get(PROCESS_TAG, "")):
                client.set_terminated(run.info.run_id, "KILLED")


def current_experiment() -> str:
    """Return the id of the experiment of new runs; call `connect` first."""
    client, active, location = mlflow.MlflowClient(), mlflow.active_run(), LOCATION.get()
    if active is not None:
        return active.info.experiment_id
    if location is not None:
        return location.experiment_id
    if "MLFLOW_RUN_ID" in os.environ:
        return client.get_run(os.environ["MLFLOW_RUN_ID"]).info.experiment_id
    found = client.get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
    assert found is not None, "call connect() first"
    return found.experiment_id
