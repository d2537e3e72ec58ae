from pathlib import Path

import pytest

from inandout.errors import InputError
from inandout.search.storage import check_url, open_store


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("somewhere", "not a URL"),
        ("sqlite:///study.db", "only postgresql"),
        ("postgresql://me@host/db", "only postgresql"),
        ("postgresql+psycopg://me:secret@host/db", "password"),
        ("postgresql+psycopg://me@host/db?password=secret", "password"),
    ],
)
def test_other_addresses_and_passwords_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as problem:
        check_url(url)
    assert "secret" not in str(problem.value)


def test_a_server_and_nothing_are_taken() -> None:
    assert check_url("") == ""
    assert check_url("postgresql+psycopg://me@host/db") == "postgresql+psycopg://me@host/db"


def test_a_server_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(InputError, match=r"server cannot be used .* is it running"):
        open_store("postgresql+psycopg://me@127.0.0.1:1/db", tmp_path, "study")


def test_the_lock_keeps_others_out(tmp_path: Path) -> None:
    first, second = (open_store("", tmp_path, "study").lock() for _ in range(2))
    with first, pytest.raises(TimeoutError):
        second.acquire(timeout=0)  # type: ignore[attr-defined]
    with second:
        pass
