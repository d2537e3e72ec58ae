"""The MLflow Model Registry: versions, and the `champion` and `previous` aliases.

MLflow reserves the aliases `latest` and `v1`, `v2`, ...
"""

import hashlib
import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
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
"""Tag of every version: the decision of the gate and its reason."""
ROLLED_BACK = "rolled_back"
"""Tag of a former champion that was rolled back."""


@contextmanager
def registry_lock(name: str) -> Iterator[None]:
    """Serialise changes to the versions and aliases of a name between processes that share one `.inandout` folder."""
    locks = state_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"model-{hashlib.sha256(name.encode()).hexdigest()[:32]}.lock")
    if lock_is_taken(lock):
        print(f"waiting for another process that is changing the registered model {name}", file=sys.stderr)
    with lock:
        yield


def version_at(name: str, alias: str) -> ModelVersion | None:
    """Return the version with an alias; None if the alias or the model does not exist."""
    client = mlflow.MlflowClient()
    try:
        number = client.get_registered_model(name).aliases.get(alias)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return None
    return None if number is None else client.get_model_version(name, str(number))


def version_of(name: str, run_id: str) -> ModelVersion | None:
    """Return the version registered from a run, or None."""
    versions = mlflow.MlflowClient().search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return versions[0] if versions else None


def add_version(name: str, model_uri: str, tags: Mapping[str, str]) -> ModelVersion:
    """Register a new version; the registered model is created if needed."""
    with redirect_stderr(io.StringIO()):  # MLflow prints what `promote` says itself
        return mlflow.register_model(model_uri, name, tags=dict(tags))


def set_champion(name: str, version: ModelVersion) -> None:
    """Make a version the champion and the old champion the previous version.

    The champion alias moves last, so an interrupted process keeps the old champion.
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
    """Swap champion and previous, and return (new champion, new previous); a second call undoes the first.

    Raises:
        InputError: there is no champion or no previous version.
    """
    champion, previous = version_at(name, CHAMPION), version_at(name, PREVIOUS)
    if champion is None:
        raise InputError(f"name = {name!r}: no registered model of this name has a champion; promote one first")
    if previous is None or previous.version == champion.version:
        raise InputError(
            f"name = {name!r}: champion version {champion.version} has no previous version; promote another one first"
        )
    client = mlflow.MlflowClient()
    _move_champion_alias(name, previous)
    client.set_registered_model_alias(name, PREVIOUS, champion.version)
    note = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC: replaced by version {previous.version}"
    client.set_model_version_tag(name, champion.version, ROLLED_BACK, note)
    return previous, champion
