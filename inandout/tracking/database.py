"""Make the SQLite database of a tracking store, so that a kill leaves none or a complete one."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
from alembic.script import ScriptDirectory
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

_PREFIX = "sqlite:///"


def database_path(uri: str) -> Path | None:
    """Return the file of a tracking URI of SQLite, or None."""
    path = uri.removeprefix(_PREFIX).partition("?")[0]
    return Path(path) if uri.startswith(_PREFIX) and path and path != ":memory:" else None


def make_database(uri: str) -> None:
    """Make the database of a tracking URI if it is missing or unfinished; call it under the lock of the store.

    Creating the tables takes MLflow seconds, and an interrupted creation cannot be resumed. Therefore they are created
    in a temporary file, which is renamed. An unfinished database is kept as `NAME.unfinished`.
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
    store = SqlAlchemyStore(f"{_PREFIX}{temporary}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)  # type: ignore[no-untyped-call]
    store.engine.dispose()
    if path.exists():
        path.replace(path.with_name(f"{path.name}.unfinished"))
    for name in (f"{path.name}-journal", f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)  # of the unfinished database
    temporary.replace(path)


def _is_unfinished(path: Path) -> bool:
    """Return whether MLflow was interrupted while it made the tables: none has a row, and migrations are missing."""
    if path.stat().st_size == 0:
        return True
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=5)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"experiments", "runs"} <= tables:
                return True
            if any(database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in ("runs", "experiments")):
                return False
            return "alembic_version" not in tables or (_newest(),) not in database.execute(
                "SELECT version_num FROM alembic_version"
            )
    except sqlite3.DatabaseError:
        return False  # locked, or no database: MLflow says so


def _newest() -> str | None:
    """Return the last migration of MLflow."""
    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations")).get_current_head()
