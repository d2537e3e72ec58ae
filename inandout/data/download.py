"""Download KolektorSDD2 from its official address."""

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
credit its authors, use it for non-commercial purposes only, share adaptations under the same licence.
For commercial use ask ViCoS, University of Ljubljana."""

_TIMEOUT = (10.0, 60.0)
"""Connect and read timeouts in seconds."""
_CONNECTIONS = 50
"""Maximum number of connections for one download; each must transfer at least one byte."""
_CHUNK = 2**18


def download_ksdd2(folder: Path, url: str = URL, md5: str = MD5) -> Path:
    """Download and unpack KolektorSDD2 below `folder`, and return the folder that contains `train` and `test`.

    Existing data are not downloaded again, and interrupted downloads resume. The archive is deleted after unpacking.

    Raises:
        InputError: the server is unreachable or refuses, the archive does not match `md5` or cannot be unpacked, or
            `folder` is not writable.
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
        why = "is a file" if folder.is_file() else f"cannot be created ({error.strerror})"
        raise InputError(f"{folder}: {why}; give a writable folder") from error


def _fetch(url: str, target: Path, md5: str) -> None:
    """Download to `target`, which is created only after the MD5 matches."""
    part = target.with_name(f"{target.name}.part")
    _complete(url, part)
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        part.unlink()
        raise InputError(
            f"{url}: the download has MD5 {found}, not {md5}, and was deleted; run it again, or check the official "
            "page for a new version of the dataset"
        )
    part.replace(target)


def _complete(url: str, part: Path) -> None:
    """Download the rest of `part`, which is kept after every error."""
    with _session() as session:
        for _ in range(_CONNECTIONS):
            before = _size(part)
            try:
                _append(session, url, part)
                break
            except requests.HTTPError as error:
                raise InputError(f"{error}; download the dataset manually from its official page") from error
            except requests.RequestException as error:
                if _size(part) <= before:
                    raise InputError(f"{url}: the download failed ({error}); run it again to resume") from error
            except OSError as error:
                raise InputError(
                    f"{part}: cannot be written ({error.strerror}); free disk space and run it again to resume"
                ) from error
        else:
            raise InputError(f"{url}: the download failed {_CONNECTIONS} times; run it again to resume")


def _session() -> requests.Session:
    session = requests.Session()
    retry = Retry(total=5, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    # Range and MD5 refer to the file itself, not to a compressed transfer.
    session.headers["Accept-Encoding"] = "identity"
    return session


def _append(session: requests.Session, url: str, part: Path) -> None:
    """Resume `part` from its end, or restart if the server does not support ranges."""
    start = _size(part)
    headers = {"Range": f"bytes={start}-"} if start else {}
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            if response.headers.get("Content-Range") == f"bytes */{start}":
                return None  # already complete
            part.unlink()  # part of another version of the file
            return _append(session, url, part)
        response.raise_for_status()
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        with part.open("ab" if resumed else "wb") as file:
            for chunk in _with_progress(response, start if resumed else 0):
                file.write(chunk)
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _with_progress(response: requests.Response, start: int) -> Iterator[bytes]:
    """Iterate over the body with a progress bar; raises `requests.RequestException` if it is incomplete."""
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    with tqdm(total=total, initial=start, desc=NAME, unit="B", unit_scale=True, disable=None) as bar:
        for chunk in response.iter_content(_CHUNK):
            bar.update(len(chunk))
            yield chunk
