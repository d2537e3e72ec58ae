"""Where a study is kept, and the lock that its workers share."""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from inandout.errors import InputError, brief

DRIVER = "postgresql+psycopg"
HEARTBEAT, GRACE = 60, 180
"""Seconds between two signs of life of a trial in a database, and after which it counts as dead."""

Lock = Callable[[], AbstractContextManager[object]]


class Store(NamedTuple):
    """A storage of Optuna's and a lock that one worker has at a time; it ends with its process."""

    storage: BaseStorage
    lock: Lock


def check_url(url: str) -> str:
    """A storage that `open_store` takes.

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        parts = make_url(url) if url else None
    except ArgumentError:
        raise ValueError(f"is not a URL; give {DRIVER}://user@host/database, or nothing") from None
    if parts and parts.drivername != DRIVER:
        raise ValueError(f"only {DRIVER}:// is supported; leave it empty for several processes on one machine")
    if parts and (parts.password or "password" in parts.query):
        raise ValueError("holds a password, which runs would show; put it into PGPASSWORD or ~/.pgpass")
    return url


def open_store(url: str, folder: Path, name: str) -> Store:
    """The storage of the study `name`.

    Args:
        url: "" for a journal file, which several processes of one machine can share and no crash of one damages; else
            a PostgreSQL URL, for several machines, where trials send signs of life.
        folder: of journal files and their locks; made where it is missing.
        name: of the study, which can be a file name.

    Raises:
        InputError: the driver is not installed, or the server does not answer.
    """
    if not url:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.log"
        return Store(
            JournalStorage(JournalFileBackend(str(path))), lambda: FileLock(f"{path}.claim")
        )  # .lock is Optuna's
    if find_spec("psycopg") is None:
        raise InputError(f"storage = {url}: needs psycopg; pip install 'inandout[postgres]'")
    try:
        engine = create_engine(url, pool_pre_ping=True)
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        with _advisory_lock(engine, 0):  # tables are made once, of all studies
            storage = _open_database(url)
    except SQLAlchemyError as error:
        raise InputError(f"storage = {url}: the server cannot be used ({brief(error)}); is it running?") from error
    return Store(storage, lambda: _advisory_lock(engine, key))


def _open_database(url: str) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # signs of life have been experimental since Optuna 2.9
        return RDBStorage(
            url, engine_kwargs={"pool_pre_ping": True}, heartbeat_interval=HEARTBEAT, grace_period=GRACE
        )  # fmt: skip


@contextmanager
def _advisory_lock(engine: Engine, key: int) -> Iterator[None]:
    """PostgreSQL's lock of a number, which ends with the connection at the latest."""
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
        connection.commit()  # the lock is the session's; no transaction stays open for as long as it is held
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
            connection.commit()
