"""Read regular files only, and write files and folders so that a kill leaves the old one or the new one."""

import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

import psutil

from inandout.errors import InputError


def require_regular(path: Path) -> None:
    """Raise an InputError if a path leads to a folder, a pipe, a device or nowhere; a missing file is allowed.

    Reading a pipe would wait, and reading a device would not end.
    """
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a file") from error
    if not stat.S_ISREG(kind):
        raise InputError(f"{path}: not a regular file; give a file")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, to be written; it replaces `path` unless an error is raised.

    Temporary files that killed processes of this machine left for the same path are removed.
    """
    machine = re.sub(r"[^\w-]", "_", socket.gethostname())
    for leftover in path.parent.glob(f".{escape(path.name)}.{machine}.*.tmp"):
        pid = leftover.name.split(".")[-2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            _remove(leftover)
    temporary = path.with_name(f".{path.name}.{machine}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
