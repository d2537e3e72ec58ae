"""Storage of a study, and the lock shared by its workers."""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from inandout.errors import InputError, brief
from inandout.search.journal import DurableJournal

HEARTBEAT, GRACE = 60, 180
"""Seconds between heartbeats of a trial in a database, and seconds without one after which it counts as dead."""

_LOST = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
"""PostgreSQL ends the session of a lost machine, and so its lock, after a minute instead of two hours."""
_ENGINE: dict[str, Any] = {"poolclass": NullPool, "connect_args": {"options": _LOST, "connect_timeout": 10}}
"""Connections are closed after use, so none is idle for hours."""

Lock = Callable[[], AbstractContextManager[object]]


class Store(NamedTuple):
    """An Optuna storage and an exclusive lock, which is released when the process ends."""

    storage: BaseStorage
    lock: Lock


def open_store(url: str, folder: Path, name: str) -> Store:
    """Open the storage of the study `name`.

    Args:
        url: "" for a crash-safe journal file shared by processes of one machine; otherwise a PostgreSQL URL, shared by
            several machines, with heartbeats of running trials.
        folder: folder of journal files and locks; created if missing.
        name: name of the study; must be a valid file name.

    Raises:
        InputError: the driver is not installed, or the server does not answer.
    """
    if not url:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.log"
        return Store(
            JournalStorage(DurableJournal(path)), lambda: FileLock(f"{path}.claim")
        )  # Optuna uses the suffix .lock
    if find_spec("psycopg") is None:
        raise InputError(f"storage = {url}: needs psycopg; pip install -e '.[postgres]'")
    try:
        engine = create_engine(url, **_ENGINE)
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        with _advisory_lock(engine, 0):  # all studies share the tables
            storage = _open_database(url)
    except SQLAlchemyError as error:
        raise InputError(f"storage = {url}: cannot connect ({brief(error)}); check that the server runs") from error
    return Store(storage, lambda: _advisory_lock(engine, key))


def _open_database(url: str) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are experimental since Optuna 2.9
        return RDBStorage(url, engine_kwargs=_ENGINE, heartbeat_interval=HEARTBEAT, grace_period=GRACE)


@contextmanager
def _advisory_lock(engine: Engine, key: int) -> Iterator[None]:
    """Hold a PostgreSQL advisory lock; the server releases it if the connection is lost."""
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
        connection.commit()  # the lock belongs to the session, so no transaction needs to stay open
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
            connection.commit()
