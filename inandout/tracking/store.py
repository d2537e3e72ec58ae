"""Tracking store: experiment, state folder, locks, and runs of other processes."""

import contextlib
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import mlflow
from filelock import FileLock
from mlflow.environment_variables import MLFLOW_ENABLE_ASYNC_LOGGING
from sqlalchemy.exc import SQLAlchemyError

from inandout.errors import InputError, brief, is_disk_full
from inandout.processes import is_dead, this_process
from inandout.tracking.database import database_path, make_database

EXPERIMENT = "inandout"
"""Default experiment."""


PROCESS_TAG = "inandout.process"
"""Run tag: the process that executes the run."""
_RESERVE, _RESERVE_BYTES = "reserve", 256 * 1024
"""File in the state folder, for the last entries of a run on a full disk."""


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
    database = database_path(mlflow.get_tracking_uri())
    return (database.parent if database else Path()) / ".inandout"


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
        shutil.rmtree(folder, ignore_errors=True)  # Windows keeps files that are mapped; `clean` removes them


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
    if MLFLOW_ENABLE_ASYNC_LOGGING.get():  # type: ignore[no-untyped-call]
        raise InputError("MLFLOW_ENABLE_ASYNC_LOGGING = true: results are read as soon as they are logged; unset it")
    uri = mlflow.get_tracking_uri()
    try:
        _refuse_silent_server(uri)
        state = state_folder()
        state.mkdir(parents=True, exist_ok=True)
        with FileLock(state / "store.lock"):
            _keep_reserve(state / _RESERVE)
            make_database(uri)
            _open_experiment()
    except (mlflow.MlflowException, SQLAlchemyError, OSError) as error:
        if is_disk_full(error):
            raise
        raise InputError(
            f"MLFLOW_TRACKING_URI = {_without_password(uri)}: the tracking store cannot be used ({brief(error)}); "
            "check that it exists, is writable and belongs to this version of MLflow, or set another one"
        ) from error


def _keep_reserve(path: Path) -> None:
    if not path.exists() or path.stat().st_size < _RESERVE_BYTES:  # a full disk keeps a part
        path.write_bytes(bytes(_RESERVE_BYTES))


def free_reserve() -> None:
    """Remove the reserve of disk space, so that a run can be closed on a full disk; `connect` makes a new one."""
    with contextlib.suppress(OSError):
        (state_folder() / _RESERVE).unlink()


def _open_experiment() -> None:
    """Set the experiment of new runs, and close runs of dead processes as KILLED."""
    client = mlflow.MlflowClient()
    experiments = client.search_experiments()
    if "MLFLOW_RUN_ID" in os.environ:
        try:
            client.set_tag(os.environ["MLFLOW_RUN_ID"], PROCESS_TAG, this_process())
        except mlflow.MlflowException as error:
            raise InputError(
                f"MLFLOW_RUN_ID = {os.environ['MLFLOW_RUN_ID']}: cannot be used ({brief(error)}); unset it, or give "
                "the id of a run of this store"
            ) from error
    elif mlflow.active_run() is None and LOCATION.get() is None:
        if wanted := _named_by_id(client):
            mlflow.set_experiment(experiment_id=wanted)
        else:
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
            os.environ.pop("MLFLOW_EXPERIMENT_ID", None)  # MLflow sets it, and another store would not have this id
    for run in client.search_runs([e.experiment_id for e in experiments], "attributes.status = 'RUNNING'"):
        if is_dead(run.data.tags.get(PROCESS_TAG, "")):
            client.set_terminated(run.info.run_id, "KILLED")


def _named_by_id(client: mlflow.MlflowClient) -> str:
    """Return the experiment of MLFLOW_EXPERIMENT_ID, "" if it is not set."""
    wanted, name = os.environ.get("MLFLOW_EXPERIMENT_ID", ""), os.environ.get("MLFLOW_EXPERIMENT_NAME", "")
    if not wanted:
        return ""
    try:
        experiment = client.get_experiment(wanted)
    except mlflow.MlflowException as error:
        raise InputError(
            f"MLFLOW_EXPERIMENT_ID = {wanted}: no experiment of this store has this id; unset it, or give another id"
        ) from error
    if experiment.lifecycle_stage != "active":
        raise InputError(f"MLFLOW_EXPERIMENT_ID = {wanted}: the experiment is deleted; restore it, or give another id")
    if name and name != experiment.name:
        raise InputError(
            f"MLFLOW_EXPERIMENT_ID = {wanted} is experiment {experiment.name!r}, but MLFLOW_EXPERIMENT_NAME = {name}; "
            "unset one of them"
        )
    return wanted


def _refuse_silent_server(uri: str) -> None:
    """Raise OSError if nothing listens at an http address: MLflow would try for minutes."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=5).close()


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri).partition("?")[0]


def current_experiment() -> str:
    """Return the id of the experiment of new runs; call `connect` first."""
    client, active, location = mlflow.MlflowClient(), mlflow.active_run(), LOCATION.get()
    if active is not None:
        return active.info.experiment_id
    if location is not None:
        return location.experiment_id
    if "MLFLOW_RUN_ID" in os.environ:
        return client.get_run(os.environ["MLFLOW_RUN_ID"]).info.experiment_id
    if wanted := _named_by_id(client):
        return wanted
    found = client.get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
    assert found is not None, "call connect() first"
    return found.experiment_id
