"""Make the SQLite database of a tracking store, so that a kill leaves none or a complete one."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

_PREFIX = "sqlite:///"


def database_path(uri: str) -> Path | None:
    """Return the file of a tracking URI of SQLite, or None."""
    path = uri.removeprefix(_PREFIX).partition("?")[0]
    return Path(path) if uri.startswith(_PREFIX) and path and path != ":memory:" else None


def make_database(uri: str) -> None:
    """Make the database of a tracking URI if it is missing or unfinished; call it under the lock of the store.

    MLflow creates and migrates its tables for seconds, and cannot go on after a kill. Therefore they are made in a
    temporary file, which is renamed. An unfinished database is kept as `NAME.unfinished`.
    """
    path = database_path(uri)
    if path is None:
        return
    for leftover in path.parent.glob(f".{path.name}.*.tmp*"):
        leftover.unlink(missing_ok=True)
    if path.exists() and not path.is_file():
        raise IsADirectoryError(f"{path} is no file")
    if path.exists() and not _is_unfinished(path):
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    store = SqlAlchemyStore(f"{_PREFIX}{temporary}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
    store.engine.dispose()
    if path.exists():
        path.replace(path.with_name(f"{path.name}.unfinished"))
    for name in (f"{path.name}-journal", f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)  # of the unfinished database
    temporary.replace(path)


def _is_unfinished(path: Path) -> bool:
    """Return whether MLflow was interrupted before the database could hold a run: it has none of its newest tables."""
    if path.stat().st_size == 0:
        return True
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=5)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "runs" in tables and database.execute("SELECT 1 FROM runs LIMIT 1").fetchone():
                return False
            return not _was_migrated(database, tables)
    except sqlite3.DatabaseError:
        return False  # locked, or no database: MLflow says so


def _was_migrated(database: sqlite3.Connection, tables: set[str]) -> bool:
    """Return whether the migrations ran to the end: MLflow then adds the default experiment."""
    if not {"alembic_version", "experiments", "runs"} <= tables:
        return False
    return bool(database.execute("SELECT count(*) FROM experiments").fetchone()[0])
