"""In-process cache of values computed from files, valid until the files change."""

import os
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

Value = TypeVar("Value")

_MIN_AGE = 2_000_000_000
"""Nanoseconds after a change during which another change may keep the same modification time (FAT: 2 s)."""


class _Version(NamedTuple):
    """State of a file, the cache key."""

    path: str
    device: int
    inode: int
    size: int
    modified: int
    changed: int


class FileCache(Generic[Value]):
    """Cache of values by file and file state. A full cache evicts nothing; further values are not cached.

    The state is taken before the file is read, so a file that changes during the read is read again next time. Files
    modified less than two seconds ago are not cached.
    """

    def __init__(self, limit: int, size_of: Callable[[Value], int] = lambda value: 1):
        """`limit` is the total size of the cached values, by default their number."""
        self._room = limit
        self._size_of = size_of
        self._values: dict[tuple[_Version, Hashable], Value] = {}
        self._lock = Lock()

    def of(self, path: Path, compute: Callable[[Path], Value], key: Hashable = None) -> Value:
        """Return `compute(path)`; `key` identifies everything else that the value depends on."""
        version = _version_of(path)
        if version is not None and (version, key) in self._values:
            return self._values[version, key]
        return self._store(version, key, compute(path))

    def each(
        self, paths: Sequence[Path], compute: Callable[[Path], Value], key: Hashable = None
    ) -> Iterator[tuple[int, Value]]:  # fmt: skip
        """Yield the index and `compute(path)` of every path: cached ones first, then the rest, computed in parallel."""
        versions = [_version_of(path) for path in paths]
        missing: list[int] = []
        for i, version in enumerate(versions):
            if version is not None and (version, key) in self._values:
                yield i, self._values[version, key]
            else:
                missing.append(i)
        with ThreadPoolExecutor() as executor:
            for i, value in zip(missing, executor.map(compute, [paths[i] for i in missing]), strict=True):
                yield i, self._store(versions[i], key, value)

    def _store(self, version: _Version | None, key: Hashable, value: Value) -> Value:
        with self._lock:
            if version is not None and (version, key) not in self._values and self._size_of(value) <= self._room:
                self._room -= self._size_of(value)
                self._values[version, key] = value
        return value


def _version_of(path: Path) -> _Version | None:
    """Return the state of a file, or None if it is missing or was modified too recently."""
    try:
        stat = os.stat(path)  # noqa: PTH116  # twice as fast as Path.stat, for thousands of files
    except (OSError, ValueError):
        return None
    if time.time_ns() - stat.st_mtime_ns < _MIN_AGE:
        return None
    return _Version(
        str(path), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    )  # fmt: skip
