"""Unpack untrusted zip archives."""

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from inandout.errors import InputError
from inandout.files import require_regular

MAX_BYTES = 8 * 2**30
"""Maximum uncompressed size; KolektorSDD2 has under 1 GiB."""
MAX_MEMBERS = 100_000
MAX_RATIO = 100
"""Maximum ratio of uncompressed to compressed size; archives of compressed images have about 1."""

_CHUNK = 2**20


def safe_unzip(archive: Path, folder: Path, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS) -> None:
    """Unpack `archive` to the new folder `folder`, which is created only when complete.

    Raises:
        InputError: `folder` exists, the archive is damaged or encrypted, a member is a link, a duplicate or would be
            written outside the folder, or the archive exceeds the limits, by its headers or while unpacking.
    """
    if folder.exists():
        raise InputError(f"{folder}: already exists; remove it or choose another folder")
    require_regular(archive)
    unfinished = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _reject_names(archive, members)
            _reject_sizes(archive, members, max_bytes, max_members)
            unfinished.mkdir(parents=True)
            _unpack(archive, opened, unfinished, max_bytes)
        unfinished.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive}: cannot be unpacked ({error}); download it again") from error
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked ({error}); check free disk space and permissions") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _reject_names(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Reject members that would be written outside the folder or over one another."""
    seen = set()
    for member in members:
        # The stored name: zipfile truncates it at NUL and replaces some separators.
        name = member.orig_filename
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or re.search(r"[\\\0]|^[A-Za-z]:", name):
            raise InputError(f"{archive}: the member {name!r} is outside the target folder; do not use this archive")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(f"{archive}: the member {name!r} is a link or a device; do not use this archive")
        if path in seen:
            raise InputError(f"{archive}: the member {name!r} occurs twice; do not use this archive")
        seen.add(path)


def _reject_sizes(archive: Path, members: Sequence[zipfile.ZipInfo], max_bytes: int, max_members: int) -> None:
    """Reject archives whose headers exceed the limits, before anything is written."""
    total = sum(member.file_size for member in members)
    if len(members) > max_members:
        raise InputError(f"{archive}: has {len(members):,} members, more than the limit of {max_members:,}")
    if total > max_bytes:
        raise InputError(f"{archive}: unpacks to {total:,} bytes, more than the limit of {max_bytes:,}")
    if total > MAX_RATIO * archive.stat().st_size:
        raise InputError(f"{archive}: unpacks to more than {MAX_RATIO} times its size; it looks like a zip bomb")


def _unpack(archive: Path, opened: zipfile.ZipFile, folder: Path, max_bytes: int) -> None:
    """Write the members, counting the actual bytes, because headers can be forged."""
    limit = min(max_bytes, MAX_RATIO * archive.stat().st_size)
    for member in opened.infolist():
        target = folder / member.filename
        if member.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(member) as source, target.open("xb") as file:
            while chunk := source.read(_CHUNK):
                limit -= len(chunk)
                if limit < 0:
                    raise InputError(f"{archive}: unpacks to more bytes than declared; it looks like a zip bomb")
                file.write(chunk)
