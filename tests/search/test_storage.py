from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from inandout.errors import InputError
from inandout.search import storage
from inandout.search.config import check_url
from inandout.search.storage import open_store


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("somewhere", "not a URL"),
        ("sqlite:///study.db", "only postgresql"),
        ("postgresql://me@host/db", "only postgresql"),
        ("postgresql+psycopg://me:secret@host/db", "password"),
        ("postgresql+psycopg://me@host/db?password=secret", "password"),
        ("postgresql+psycopg://me@host/db?sslpassword=secret", "password"),
        ("postgresql+psycopg://me@host/db?options=secret", "allowed are application_name"),
        ("postgresql+psycopg://me@host/db#secret", "allowed are"),
    ],
)
def test_invalid_urls_and_passwords_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as problem:
        check_url(url)
    assert "secret" not in str(problem.value)


def test_a_postgresql_url_and_an_empty_one_are_accepted() -> None:
    assert check_url("") == ""
    assert check_url("postgresql+psycopg://me@host/db") == "postgresql+psycopg://me@host/db"


def test_an_unreachable_server_is_an_input_error(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(InputError, match=r"cannot connect .* check that the server runs"):
        open_store("postgresql+psycopg://me@127.0.0.1:1/db", tmp_path, "study")


def test_the_lock_is_exclusive(tmp_path: Path) -> None:
    first, second = (open_store("", tmp_path, "study").lock() for _ in range(2))
    with first, pytest.raises(TimeoutError):
        second.acquire(timeout=0)  # type: ignore[attr-defined]
    with second:
        pass


@pytest.mark.slow
def test_no_connection_stays_open_and_a_lost_machine_is_noticed(postgres: str, tmp_path: Path) -> None:
    psycopg = pytest.importorskip("psycopg")
    store = open_store(postgres, tmp_path, "study")
    with store.lock():
        assert store.storage.get_all_studies() == []
        with psycopg.connect(postgres.replace("+psycopg", "")) as connection:
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            assert connection.execute(f"SELECT COUNT(*) {others}").fetchone() == (1,), "the lock has one"
    with psycopg.connect(postgres.replace("+psycopg", "")) as connection:
        assert connection.execute(f"SELECT COUNT(*) {others}").fetchone() == (0,)
    with create_engine(postgres, **storage._ENGINE).connect() as engine:
        assert engine.execute(text("SHOW tcp_keepalives_idle")).scalar() == "30"
