import os
import time
from pathlib import Path

import pytest

from inandout.data.file_cache import FileCache


def old(path: Path, text: str, age: float = 100) -> Path:
    """A file that was written a while ago."""
    path.write_text(text)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    seen: list[str] = []
    memory: FileCache[str] = FileCache(100)
    paths = [old(tmp_path / name, name) for name in "abc"]

    def read(path: Path) -> str:
        seen.append(path.name)
        return path.read_text()

    def texts() -> list[str]:
        found = dict(memory.each(paths, read))
        return [found[i] for i in range(len(paths))]

    assert texts() == texts() == ["a", "b", "c"]
    assert sorted(seen) == ["a", "b", "c"]
    old(paths[1], "B", age=99)
    assert texts() == ["a", "B", "c"]
    assert sorted(seen) == ["a", "b", "b", "c"]
    assert memory.of(paths[0], lambda path: "read again") == "a"
    assert memory.of(paths[0], lambda path: "another", key=1) == "another"


def test_a_change_that_keeps_size_and_date_is_seen(tmp_path: Path) -> None:
    path = old(tmp_path / "a", "one")
    memory: FileCache[str] = FileCache(100)
    assert memory.of(path, Path.read_text) == "one"
    before = path.stat()
    time.sleep(0.05)  # a step of the clock of the file system
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert memory.of(path, Path.read_text) == "two"


def test_a_file_that_changed_a_moment_ago_may_change_again_unseen_so_it_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "a"
    memory: FileCache[str] = FileCache(100)
    for text in ("one", "two", "six"):
        path.write_text(text)
        assert memory.of(path, Path.read_text) == text


def test_what_has_no_room_is_worked_out_every_time(tmp_path: Path) -> None:
    paths = [old(tmp_path / name, name * 4) for name in "abc"]
    memory: FileCache[str] = FileCache(9, len)
    assert [memory.of(path, Path.read_text) for path in paths] == ["aaaa", "bbbb", "cccc"]
    assert [memory.of(path, lambda path: "new") for path in paths] == ["aaaa", "bbbb", "new"]


def test_an_error_is_not_remembered(tmp_path: Path) -> None:
    memory: FileCache[str] = FileCache(100)
    with pytest.raises(FileNotFoundError):
        list(memory.each([tmp_path / "a"], Path.read_text))
    assert list(memory.each([old(tmp_path / "a", "here")], Path.read_text)) == [(0, "here")]
