"""What was worked out from files is remembered within the process, for as long as the files do not change."""

import os
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

Value = TypeVar("Value")

_UNSETTLED = 2_000_000_000
"""Nanoseconds after a change in which a file may change again without another time stamp; FAT's steps are the longest.
"""


class _Version(NamedTuple):
    """One state of one file."""

    path: str
    device: int
    inode: int
    size: int
    modified: int
    changed: int


class FileCache(Generic[Value]):
    """Values by file and state of the file; when it is full, what comes later is worked out every time.

    A file is looked at for its state before it is read, so that one that changes meanwhile is read again next time.
    One that changed a moment ago is not remembered at all.
    """

    def __init__(self, limit: int, size_of: Callable[[Value], int] = lambda value: 1):
        """Room for values whose sizes are `limit` in all; by default a number of values."""
        self._room = limit
        self._size_of = size_of
        self._known: dict[tuple[_Version, Hashable], Value] = {}
        self._lock = Lock()

    def of(self, path: Path, work: Callable[[Path], Value], key: Hashable = None) -> Value:
        """`work(path)`; `key` is everything else that it depends on."""
        version = _version_of(path)
        if version is not None and (version, key) in self._known:
            return self._known[version, key]
        return self._keep(version, key, work(path))

    def each(
        self, paths: Sequence[Path], work: Callable[[Path], Value], key: Hashable = None
    ) -> Iterator[tuple[int, Value]]:  # fmt: skip
        """Index and `work(path)` of every path: first those that are known, then the others, worked out in parallel."""
        versions = [_version_of(path) for path in paths]
        missing: list[int] = []
        for i, version in enumerate(versions):
            if version is not None and (version, key) in self._known:
                yield i, self._known[version, key]
            else:
                missing.append(i)
        with ThreadPoolExecutor() as executor:
            for i, value in zip(missing, executor.map(work, [paths[i] for i in missing]), strict=True):
                yield i, self._keep(versions[i], key, value)

    def _keep(self, version: _Version | None, key: Hashable, value: Value) -> Value:
        with self._lock:
            if version is not None and (version, key) not in self._known and self._size_of(value) <= self._room:
                self._room -= self._size_of(value)
                self._known[version, key] = value
        return value


def _version_of(path: Path) -> _Version | None:
    """The state of a file; None where there is none, or it is too young to be told from the next one."""
    try:
        found = os.stat(path)  # noqa: PTH116  # half the time of Path.stat, and there are thousands
    except (OSError, ValueError):
        return None
    if time.time_ns() - found.st_mtime_ns < _UNSETTLED:
        return None
    return _Version(
        str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )  # fmt: skip
