"""The model registry: versions of one name, and which of them is the champion.

Aliases are this project's own, `champion` and `previous`; MLflow keeps `latest` and `v1`, `v2`, ... for itself.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import mlflow
from filelock import FileLock
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from inandout.errors import InputError
from inandout.tracking.store import lock_is_taken, state_folder

CHAMPION, PREVIOUS = "champion", "previous"
GATE = "gate"
"""Tag of every version: what was found when it was promoted, and so why it is the champion or is not."""
ROLLED_BACK = "rolled_back"
"""Tag of a version whose place was given back to the one before."""


@contextmanager
def registry_lock(name: str) -> Iterator[None]:
    """One process at a time changes the versions and aliases of a name; another one waits.

    It holds for the processes that share one `.inandout` folder.
    """
    locks = state_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"model-{hashlib.sha256(name.encode()).hexdigest()[:32]}.lock")
    if lock_is_taken(lock):
        print(f"another process is changing the registered model {name}; waiting for it", file=sys.stderr)
    with lock:
        yield


def version_at(name: str, alias: str) -> ModelVersion | None:
    """The version that has an alias; None where there is none, or no model of this name."""
    client = mlflow.MlflowClient()
    try:
        number = client.get_registered_model(name).aliases.get(alias)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return None
    return None if number is None else client.get_model_version(name, str(number))


def version_of(name: str, run_id: str) -> ModelVersion | None:
    """The version that a run has made already."""
    found = mlflow.MlflowClient().search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return found[0] if found else None


def add_version(name: str, model_uri: str, tags: Mapping[str, str]) -> ModelVersion:
    """A new version of a name, which is made with the first one."""
    return mlflow.register_model(model_uri, name, tags=dict(tags))


def set_champion(name: str, version: ModelVersion) -> None:
    """Make a version the champion, and the champion the previous one.

    The champion is moved last: a process that dies in between leaves the old one.
    """
    client = mlflow.MlflowClient()
    champion = version_at(name, CHAMPION)
    if champion is not None and champion.version != version.version:
        client.set_registered_model_alias(name, PREVIOUS, champion.version)
    _move_champion_alias(name, version)


def _move_champion_alias(name: str, version: ModelVersion) -> None:
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(name, CHAMPION, version.version)
    if ROLLED_BACK in version.tags:
        client.delete_model_version_tag(name, version.version, ROLLED_BACK)


def roll_back(name: str) -> tuple[ModelVersion, ModelVersion]:
    """Swap champion and previous; returns the new pair in this order, so a second time undoes the first.

    Raises:
        InputError: there is no champion, or none before it.
    """
    champion, previous = version_at(name, CHAMPION), version_at(name, PREVIOUS)
    if champion is None:
        raise InputError(f"name = {name!r}: no registered model of this name has a champion; promote one first")
    if previous is None or previous.version == champion.version:
        raise InputError(f"name = {name!r}: version {champion.version} is the champion, and there is none before it")
    client = mlflow.MlflowClient()
    _move_champion_alias(name, previous)
    client.set_registered_model_alias(name, PREVIOUS, champion.version)
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC: version {previous.version} took its place"
    client.set_model_version_tag(name, champion.version, ROLLED_BACK, when)
    return previous, champion
