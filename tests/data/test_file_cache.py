import os
import time
from pathlib import Path

import pytest

from inandout.data.file_cache import FileCache


def old(path: Path, text: str, age: float = 100) -> Path:
    """Write a file with an old modification time."""
    path.write_text(text)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    reads: list[str] = []
    cache: FileCache[str] = FileCache(100)
    paths = [old(tmp_path / name, name) for name in "abc"]

    def read(path: Path) -> str:
        reads.append(path.name)
        return path.read_text()

    def texts() -> list[str]:
        found = dict(cache.each(paths, read))
        return [found[i] for i in range(len(paths))]

    assert texts() == texts() == ["a", "b", "c"]
    assert sorted(reads) == ["a", "b", "c"]
    old(paths[1], "B", age=99)
    assert texts() == ["a", "B", "c"]
    assert sorted(reads) == ["a", "b", "b", "c"]
    assert cache.of(paths[0], lambda path: "read again") == "a"
    assert cache.of(paths[0], lambda path: "another", key=1) == "another"


def test_a_change_with_equal_size_and_date_is_detected(tmp_path: Path) -> None:
    path = old(tmp_path / "a", "one")
    cache: FileCache[str] = FileCache(100)
    assert cache.of(path, Path.read_text) == "one"
    before = path.stat()
    time.sleep(0.05)  # longer than the resolution of the file system's clock
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.of(path, Path.read_text) == "two"


def test_recently_modified_files_are_not_cached(tmp_path: Path) -> None:
    path = tmp_path / "a"
    cache: FileCache[str] = FileCache(100)
    for text in ("one", "two", "six"):
        path.write_text(text)
        assert cache.of(path, Path.read_text) == text


def test_a_full_cache_computes_further_values_every_time(tmp_path: Path) -> None:
    paths = [old(tmp_path / name, name * 4) for name in "abc"]
    cache: FileCache[str] = FileCache(9, len)
    assert [cache.of(path, Path.read_text) for path in paths] == ["aaaa", "bbbb", "cccc"]
    assert [cache.of(path, lambda path: "new") for path in paths] == ["aaaa", "bbbb", "new"]


def test_errors_are_not_cached(tmp_path: Path) -> None:
    cache: FileCache[str] = FileCache(100)
    with pytest.raises(FileNotFoundError):
        list(cache.each([tmp_path / "a"], Path.read_text))
    assert list(cache.each([old(tmp_path / "a", "here")], Path.read_text)) == [(0, "here")]
