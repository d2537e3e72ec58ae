"""Optuna's journal file, readable after a kill, a full disk or a power cut."""

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

_BEGIN = b'{"op_code"'


class DurableJournal(JournalFileBackend):
    """Journal that skips what is no complete entry, wherever it is in the file.

    Such lines were never acknowledged: half lines of a write that failed, and blanks or zeros that a file system leaves
    after a power cut.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal, or create it."""
        # The default lock is a symbolic link, which Windows refuses to most users.
        self._lock_file = JournalFileOpenLock(str(path))
        super().__init__(str(path), lock_obj=self._lock_file)
        self._path = path
        self._ends = [0]
        """Byte offsets: `_ends[i]` is the end of the i-th entry, counted from 1."""

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the entries from number `log_number_from` on."""
        number = min(log_number_from, len(self._ends) - 1)
        with self._path.open("rb") as file:
            place = file.seek(self._ends[number])
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written, or cut off
                place += len(line)
                entry = _parse(line)
                if entry is None:
                    continue
                number += 1
                if number == len(self._ends):
                    self._ends.append(place)
                if number > log_number_from:
                    yield entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries on lines of their own and flush them to disk; a failed write leaves the file unchanged."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._lock_file.acquire()
        try:
            with self._path.open("a+b") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(end - 1, 0))
                if file.read(1) not in (b"", b"\n"):
                    text = b"\n" + text
                try:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self._path, end)
                    raise
        finally:
            self._lock_file.release()


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line, or None. A half line may stand before an entry that an older version appended."""
    start = line.rfind(_BEGIN)
    try:
        entry = json.loads(line[max(start, 0) :].strip(b"\0 \r\n"))
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("op_code"), int) else None
