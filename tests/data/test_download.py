import errno
import hashlib
import io
import re
import stat
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from inandout.data import download, unzip
from inandout.data.download import MD5, URL, download_ksdd2
from inandout.data.unzip import safe_unzip
from inandout.errors import InputError

NOISE = np.random.default_rng(0).integers(0, 256, 1_500_000, dtype=np.uint8).tobytes()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


DATA = zipped({"train/10000.png": NOISE, "train/10000_GT.png": b"m", "test/20000.png": b"t"})
DATA_MD5 = hashlib.md5(DATA).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serve DATA; the server object has the flags and the log."""

    def do_GET(self) -> None:
        flags, log = self.server.flags, self.server.log  # type: ignore[attr-defined]
        log.append(self.headers.get("Range"))
        if "missing" in flags:
            return self.send_error(404)
        if "busy" in flags and len(log) == 1:
            return self.send_error(503)
        start = 0
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if requested and "no range" not in flags:
            start = int(requested[1])
            if start >= len(DATA):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(DATA)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        drops = "always drops" in flags or ("drops once" in flags and len(log) == 1)
        self.wfile.write(DATA[start : start + (len(DATA) - start) // 2] if drops else DATA[start:])
        return None

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def server(*flags: str) -> Iterator[tuple[str, list[str | None]]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.flags, running.log = flags, []  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}/ksdd2", running.log  # type: ignore[attr-defined]
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_the_official_address_and_digest_are_the_default() -> None:
    assert (URL, MD5) == ("https://go.vicos.si/kolektorsdd2", "1ed0f628122776ace4965afa30dfe316")


def test_a_download_is_unpacked_and_shows_the_licence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with server() as (url, log):
        folder = download_ksdd2(tmp_path / "data", url, DATA_MD5)
        assert download_ksdd2(tmp_path / "data", url, DATA_MD5) == folder
    assert log == [None]  # the second call downloads nothing
    assert (folder / "train" / "10000.png").read_bytes() == NOISE
    assert {path.name for path in (tmp_path / "data").iterdir()} - {".KolektorSDD2.lock"} == {"KolektorSDD2"}
    assert "CC BY-NC-SA 4.0" in capfd.readouterr().err


@pytest.mark.parametrize("flags", [("drops once",), ("drops once", "no range"), ("busy",)])
def test_a_broken_connection_is_resumed(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with server(*flags) as (url, log):
        assert (download_ksdd2(tmp_path, url, DATA_MD5) / "train" / "10000.png").read_bytes() == NOISE
    assert len(log) == 2
    assert (log[1] is None) == ("busy" in flags)


def test_a_server_that_always_drops_raises_an_error(tmp_path: Path) -> None:
    with server("always drops") as (url, log), pytest.raises(InputError, match=r"the download failed.*run it again"):
        download_ksdd2(tmp_path, url, DATA_MD5)
    assert 1 < len(log) < 30
    assert not (tmp_path / "KolektorSDD2").exists()


@pytest.mark.parametrize("size", [1000, len(DATA), len(DATA) + 5])
def test_an_existing_part_is_resumed(tmp_path: Path, size: int) -> None:
    (tmp_path / "KolektorSDD2.zip.part").write_bytes((DATA + b"other")[:size])
    with server() as (url, log):
        assert download_ksdd2(tmp_path, url, DATA_MD5).is_dir()
    assert log == [f"bytes={size}-"] + [None] * (size > len(DATA))


def test_a_missing_file_raises_an_error_without_retries(tmp_path: Path) -> None:
    with server("missing") as (url, log), pytest.raises(InputError, match=r"404.*official page"):
        download_ksdd2(tmp_path, url, DATA_MD5)
    assert len(log) == 1


def test_a_wrong_md5_raises_an_error_and_deletes_the_download(tmp_path: Path) -> None:
    with server() as (url, _), pytest.raises(InputError, match=f"MD5 {DATA_MD5}, not {'0' * 32}.*run it again"):
        download_ksdd2(tmp_path, url, "0" * 32)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_an_existing_archive_is_not_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / "KolektorSDD2.zip").write_bytes(zipped({"KolektorSDD2/train/1.png": b"p"}))
    folder = download_ksdd2(tmp_path, "http://127.0.0.1:9/never", DATA_MD5)
    assert (folder / "train" / "1.png").is_file()


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/x", "C:\\x", "C:x", "a\\..\\..\\x", "..", "a/x\0.png"], ids=lambda name: repr(name)
)
def test_a_member_outside_the_target_folder_raises_an_error(tmp_path: Path, name: str) -> None:
    safe_name = name.replace("\0", "N")
    content = zipped({"a.txt": b"a", safe_name: b"evil"}).replace(safe_name.encode(), name.encode())
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match="is outside the target folder"):
        safe_unzip(tmp_path / "a.zip", tmp_path / "in" / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


def test_a_link_in_an_archive_raises_an_error(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="link or a device"):
        safe_unzip(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_member_names_raise_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", "1")
        archive.writestr("a", "2")
    with pytest.raises(InputError, match="twice"):
        safe_unzip(tmp_path / "a.zip", tmp_path / "out")


def test_headers_above_the_limits_raise_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"a": b"1" * 100, "b": b"2" * 100}))
    with pytest.raises(InputError, match="limit of 199"):
        safe_unzip(tmp_path / "a.zip", tmp_path / "out", max_bytes=199)
    with pytest.raises(InputError, match="2 members, more than the limit of 1"):
        safe_unzip(tmp_path / "a.zip", tmp_path / "out", max_members=1)
    safe_unzip(tmp_path / "a.zip", tmp_path / "out", max_bytes=200, max_members=2)
    assert (tmp_path / "out" / "b").read_bytes() == b"2" * 100


def test_a_zip_bomb_raises_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"a": bytes(10_000_000)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(InputError, match="zip bomb"):
        safe_unzip(tmp_path / "a.zip", tmp_path / "out")


def test_forged_sizes_raise_an_error(tmp_path: Path) -> None:
    size = (10_000_000).to_bytes(4, "little")
    content = zipped({"a": bytes(10_000_000)}, zipfile.ZIP_DEFLATED).replace(size, (100).to_bytes(4, "little"))
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match="cannot be unpacked"):
        safe_unzip(tmp_path / "a.zip", tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


def test_bytes_are_counted_while_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"a": bytes(1000)}))
    monkeypatch.setattr(unzip, "_reject_sizes", lambda *_: None)
    with pytest.raises(InputError, match="more bytes than declared"):
        safe_unzip(tmp_path / "a.zip", tmp_path / "out", max_bytes=999)
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


@pytest.mark.parametrize("content", [b"", b"<html>", DATA[: len(DATA) // 2], DATA.replace(NOISE[:9], NOISE[1:10])])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match="cannot be unpacked"):
        safe_unzip(tmp_path / "a.zip", tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


def test_an_existing_folder_raises_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(DATA)
    with pytest.raises(InputError, match="already exists"):
        safe_unzip(tmp_path / "a.zip", tmp_path)


def test_the_part_is_kept_after_the_last_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_CONNECTIONS", 2)
    with server("always drops") as (url, log), pytest.raises(InputError, match="failed 2 times; run it again"):
        download_ksdd2(tmp_path, url, DATA_MD5)
    assert len(log) == 2
    part = (tmp_path / "KolektorSDD2.zip.part").read_bytes()
    assert part
    assert DATA.startswith(part)


def test_a_full_disk_raises_an_error_and_keeps_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_and_fail(chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield next(chunks)
        raise OSError(errno.ENOSPC, "No space left on device")

    real = download._with_progress
    monkeypatch.setattr(download, "_with_progress", lambda *args: write_and_fail(real(*args)))
    with server() as (url, _), pytest.raises(InputError, match=r"part: cannot be written \(No space.*run it again"):
        download_ksdd2(tmp_path, url, DATA_MD5)
    part = (tmp_path / "KolektorSDD2.zip.part").read_bytes()
    assert part
    assert DATA.startswith(part)


@pytest.mark.parametrize(("name", "reason"), [("file", "is a file"), ("file/below", "cannot be created")])
def test_a_file_in_place_of_the_folder_raises_an_error(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=f"{name}: {reason}"):
        download_ksdd2(tmp_path / name, "http://127.0.0.1:9/never", DATA_MD5)
    assert (tmp_path / "file").read_text() == "x"
