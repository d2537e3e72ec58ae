"""Unpacking archives that are not trusted."""

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from inandout.errors import InputError

MAX_BYTES = 8 * 2**30
"""Uncompressed; KolektorSDD2 has under 1 GiB."""
MAX_MEMBERS = 100_000
MAX_RATIO = 100
"""Uncompressed bytes to bytes of the archive; images that are already compressed have about 1."""

_CHUNK = 2**20


def safe_unzip(archive: Path, folder: Path, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS) -> None:
    """Unpack `archive` to the new folder `folder`, which appears under its name only when it is complete.

    Raises:
        InputError: `folder` exists; the archive is damaged or encrypted, has a member that would leave the folder, is a
            link or is there twice, or more members or bytes than the limits, by its headers or while it is unpacked.
    """
    if folder.exists():
        raise InputError(f"{folder}: exists already; remove it or choose another folder")
    unfinished = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _refuse_names(archive, members)
            _refuse_sizes(archive, members, max_bytes, max_members)
            unfinished.mkdir(parents=True)
            _unpack(archive, opened, unfinished, max_bytes)
        unfinished.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive}: cannot be unpacked ({error}); download it again") from error
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked ({error}); look at the space and the rights there") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _refuse_names(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse members that would be written outside the folder or over one another."""
    seen = set()
    for member in members:
        # The name as it is stored: zipfile cuts it at a NUL and turns some separators.
        name = member.orig_filename
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or re.search(r"[\\\0]|^[A-Za-z]:", name):
            raise InputError(f"{archive}: the member {name!r} would leave the folder; do not use this archive")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(f"{archive}: the member {name!r} is a link or a device; do not use this archive")
        if path in seen:
            raise InputError(f"{archive}: the member {name!r} is there twice; do not use this archive")
        seen.add(path)


def _refuse_sizes(archive: Path, members: Sequence[zipfile.ZipInfo], max_bytes: int, max_members: int) -> None:
    """Refuse by what the headers say, before anything is written."""
    total = sum(member.file_size for member in members)
    if len(members) > max_members:
        raise InputError(f"{archive}: {len(members):,} members, more than the limit of {max_members:,}")
    if total > max_bytes:
        raise InputError(f"{archive}: {total:,} bytes unpacked, more than the limit of {max_bytes:,}")
    if total > MAX_RATIO * archive.stat().st_size:
        raise InputError(f"{archive}: unpacks to more than {MAX_RATIO} times its size; it looks like a zip bomb")


def _unpack(archive: Path, opened: zipfile.ZipFile, folder: Path, max_bytes: int) -> None:
    """Write the members, counting what really comes out, since headers can lie."""
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
                    raise InputError(f"{archive}: unpacks to more bytes than its headers say; it looks like a zip bomb")
                file.write(chunk)
