import os
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from inandout.errors import InputError
from inandout.tracking import database, store
from inandout.tracking.database import make_database
from inandout.tracking.store import connect


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


class KillError(BaseException):
    """Simulates a kill."""


def test_a_database_that_was_never_finished_is_made_again(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, uri = fresh / "mlflow.db", f"sqlite:///{fresh}/mlflow.db"
    with monkeypatch.context() as patch, pytest.raises(KillError):

        def kill(*arguments: object) -> None:
            Path(str(arguments[0]).removeprefix("sqlite:///")).write_bytes(b"half")
            raise KillError

        patch.setattr(database, "SqlAlchemyStore", kill)
        connect()
    assert not path.exists()
    connect()
    assert not list(fresh.glob(".mlflow.db.*")), "the leftover is removed"
    complete = path.read_bytes()
    with closing(sqlite3.connect(path)) as opened:
        tables = [row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]

    def interrupted(*statements: str) -> None:
        path.write_bytes(complete)
        with closing(sqlite3.connect(path)) as opened, opened:
            for statement in statements:
                opened.execute(statement)

    for statements in (
        ["DELETE FROM experiments", "UPDATE alembic_version SET version_num = 'older'"],
        [f"DROP TABLE {table}" for table in tables if table != "experiments" and not table.startswith("sqlite_")],
        ["DELETE FROM experiments", "DROP TABLE alembic_version"],
    ):
        interrupted(*statements)
        assert database._is_unfinished(path), statements
    made: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(database, "SqlAlchemyStore", lambda uri, root: made.append(uri) or _Made(uri, complete))
        make_database(uri)
        assert len(made) == 1
        assert path.read_bytes() == complete
        assert (fresh / "mlflow.db.unfinished").is_file()
        path.write_bytes(b"")
        make_database(uri)
        make_database(uri)
        assert len(made) == 2, "a finished database stays"
        with closing(sqlite3.connect(path)) as opened, opened:
            opened.execute("INSERT INTO runs (run_uuid, experiment_id) VALUES ('r', 0)")
            opened.execute("DELETE FROM experiments")
            opened.execute("DELETE FROM alembic_version")
        make_database(uri)
        assert len(made) == 2, "a database with a run is never replaced"


class _Made:
    def __init__(self, uri: str, content: bytes) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(content)
        self.engine = self

    def dispose(self) -> None:
        """Close nothing."""


def test_the_environment_of_mlflow_chooses_the_experiment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect()
    wanted = mlflow.MlflowClient().create_experiment("theirs")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", wanted)
    connect()
    assert store.current_experiment() == wanted
    with mlflow.start_run() as run:
        assert run.info.experiment_id == wanted
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    with pytest.raises(InputError, match="is experiment 'theirs', but MLFLOW_EXPERIMENT_NAME = mine"):
        connect()
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "999")
    with pytest.raises(InputError, match="MLFLOW_EXPERIMENT_ID = 999: no experiment"):
        connect()
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    with pytest.raises(InputError, match=r"MLFLOW_RUN_ID = f+: cannot be used"):
        connect()


@pytest.mark.parametrize("kind", ["garbage", "folder", "silent server", "unknown"])
def test_a_store_that_cannot_be_used_is_one_sentence(fresh: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "garbage":
        (fresh / "mlflow.db").write_bytes(b"garbage" * 1000)
    elif kind == "folder":
        (fresh / "mlflow.db").mkdir()
    else:
        uri = "http://user:secret@127.0.0.1:9" if kind == "silent server" else "nonsense://x"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match="the tracking store cannot be used") as refusal:
        connect()
    assert "secret" not in str(refusal.value)


def test_a_process_may_change_the_store_and_the_experiment(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow.create_experiment("first of this store")
    connect()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    connect()
    assert mlflow.get_experiment(store.current_experiment()).name == "another"
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    connect()
    assert mlflow.get_experiment(store.current_experiment()).name == store.EXPERIMENT
