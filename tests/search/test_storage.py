from pathlib import Path

import pytest

from inandout.errors import InputError
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
