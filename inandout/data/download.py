"""KolektorSDD2 from its official address."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3 import Retry

from inandout.data.unzip import safe_unzip
from inandout.errors import InputError

URL = "https://go.vicos.si/kolektorsdd2"
MD5 = "1ed0f628122776ace4965afa30dfe316"
NAME = "KolektorSDD2"
LICENCE = """KolektorSDD2 (https://www.vicos.si/resources/kolektorsdd2/) is licensed CC BY-NC-SA 4.0:
name its authors, use it for non-commercial purposes only, share what you make of it under the same licence.
For commercial use ask ViCoS, University of Ljubljana."""

_TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and between two pieces of the answer."""
_CONNECTIONS = 50
"""How often a download that breaks off is taken up again at most, as long as each connection brings something."""
_CHUNK = 2**18


def download_ksdd2(folder: Path, url: str = URL, md5: str = MD5) -> Path:
    """Download and unpack KolektorSDD2 below `folder`, and give the folder that holds `train` and `test`.

    What is there already is not downloaded again; a download that was stopped goes on where it was. The archive is
    removed once it is unpacked.

    Raises:
        InputError: the server cannot be reached or refuses, the content is not what `md5` says, or cannot be unpacked,
            or `folder` cannot be written.
    """
    print(LICENCE, file=sys.stderr)
    _make_folder(folder)
    unpacked, archive = folder / NAME, folder / f"{NAME}.zip"
    with FileLock(folder / f".{NAME}.lock"):
        if not unpacked.exists():
            if not archive.exists():
                _fetch(url, archive, md5)
            safe_unzip(archive, unpacked)
            archive.unlink()
    inner = unpacked / NAME
    return inner if inner.is_dir() else unpacked


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "is a file" if folder.is_file() else f"cannot be made ({error.strerror})"
        raise InputError(f"{folder}: {why}; name a folder that can be written") from error


def _fetch(url: str, target: Path, md5: str) -> None:
    """Download to `target`, which appears under its name only when it is complete and right."""
    part = target.with_name(f"{target.name}.part")
    _complete(url, part)
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        part.unlink()
        raise InputError(
            f"{url}: what was downloaded has the md5 {found} instead of {md5} and was removed; run it again, "
            "and if that does not help look on the official page whether the data set has changed"
        )
    part.replace(target)


def _complete(url: str, part: Path) -> None:
    """Download what `part` still lacks; it is kept whatever stops that."""
    with _session() as session:
        for _ in range(_CONNECTIONS):
            before = _size(part)
            try:
                _append(session, url, part)
                break
            except requests.HTTPError as error:
                raise InputError(f"{error}; download the data set by hand from its official page") from error
            except requests.RequestException as error:
                if _size(part) <= before:
                    raise InputError(f"{url}: the download broke off ({error}); run it again to go on") from error
            except OSError as error:
                raise InputError(
                    f"{part}: cannot be written ({error.strerror}); make room for it and run it again to go on"
                ) from error
        else:
            raise InputError(f"{url}: the download broke off {_CONNECTIONS} times; run it again to go on")


def _session() -> requests.Session:
    session = requests.Session()
    retry = Retry(total=5, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    # Bytes as they are: a Range and an md5 are of the file, not of a compressed transfer of it.
    session.headers["Accept-Encoding"] = "identity"
    return session


def _append(session: requests.Session, url: str, part: Path) -> None:
    """Go on with `part` from where it ends, or from the start where the server cannot do that."""
    start = _size(part)
    headers = {"Range": f"bytes={start}-"} if start else {}
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        if start and answer.status_code == requests.codes.requested_range_not_satisfiable:
            if answer.headers.get("Content-Range") == f"bytes */{start}":
                return None  # it was complete already
            part.unlink()  # of another file than the server has now
            return _append(session, url, part)
        answer.raise_for_status()
        resumed = answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        with part.open("ab" if resumed else "wb") as file:
            for chunk in _with_progress(answer, start if resumed else 0):
                file.write(chunk)
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _with_progress(answer: requests.Response, start: int) -> Iterator[bytes]:
    """The pieces of an answer under a progress bar; raises `requests.RequestException` where it ends too early."""
    length = answer.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    with tqdm(total=total, initial=start, desc=NAME, unit="B", unit_scale=True, disable=None) as bar:
        for chunk in answer.iter_content(_CHUNK):
            bar.update(len(chunk))
            yield chunk
