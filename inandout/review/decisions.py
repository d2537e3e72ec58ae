"""Decisions of reviewers, in an append-only file with one JSON line per decision."""

import contextlib
import os
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from inandout.data.manifest import Review
from inandout.errors import InputError
from inandout.files import replacing, require_regular

Reviewer = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
"""Name of a person."""
Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=300)]
"""Free text."""
ImageId = Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
"""Digest of an image (`inandout.data.manifest.digest`)."""


class Decision(BaseModel):
    """The decision of one person on one image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: ImageId
    decision: Review
    """Empty if the decision was withdrawn."""
    reason: Reason = ""
    reviewer: Reviewer
    when: datetime
    """Wall-clock time; the order of decisions is the order of the lines."""
    undo: bool = False
    """Whether this decision restores the one before the last decision of the same person."""

    @model_validator(mode="before")
    @classmethod
    def _rename_verdict(cls, values: Any) -> Any:
        """Accept the old key `verdict` for `decision`, so that existing logs stay readable."""
        if isinstance(values, dict) and "verdict" in values:
            return {"decision" if key == "verdict" else key: value for key, value in values.items()}
        return values


class ConflictError(Exception):
    """The same person decided on the same image in another tab."""


class DecisionLog:
    """The decisions on one pool, stored on disk; threads and processes can write concurrently."""

    def __init__(self, path: Path):
        """Open the log at `path`, or create it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._mutex = threading.Lock()
        self._known: list[Decision] = []
        self._end = 0  # byte offset after the last complete line that was read
        self._last = b""  # that line

    def read(self) -> list[Decision]:
        """Return all decisions in chronological order.

        Raises:
            InputError: a line is not a decision.
        """
        with self._mutex:
            self._catch_up()
            return list(self._known)

    def decide(self, image: str, decision: Review, reason: str, reviewer: str, seen: int) -> Decision:
        """Append a decision and flush it to disk.

        Args:
            image: digest of the image.
            decision: keep, reject, unsure, or empty to withdraw.
            reason: free text.
            reviewer: name of the person.
            seen: number of decisions by this person on this image that the page has received.

        Raises:
            ConflictError: the number of decisions differs from `seen`, so the page is out of date.
            InputError: the file cannot be written.
        """
        made = Decision(image=image, decision=decision, reason=reason, reviewer=reviewer, when=datetime.now(UTC))
        with self._mutex, self._lock:
            self._catch_up()
            if count_decisions(self._known, made.reviewer, made.image) != seen:
                raise ConflictError
            self._write(made)
        return made

    def undo(self, reviewer: str) -> Decision | None:
        """Undo the last active decision of a person and restore the one before it.

        Returns:
            The restored decision, or None if there is nothing to undo.
        """
        with self._mutex, self._lock:
            self._catch_up()
            stack = active_decisions(self._known, reviewer)
            if not stack:
                return None
            last = stack.pop()
            before = next((decision for decision in reversed(stack) if decision.image == last.image), None)
            restored = Decision(
                image=last.image, decision=before.decision if before else "",
                reason=before.reason if before else "", reviewer=reviewer, when=datetime.now(UTC), undo=True,
            )  # fmt: skip
            self._write(restored)
            return restored

    def add(self, decisions: Sequence[Decision]) -> None:
        """Append the decisions of another log that are missing here."""
        with self._mutex, self._lock:
            self._catch_up()
            known = set(self._known)
            for decision in decisions:
                if decision not in known:
                    self._write(decision)

    def _catch_up(self) -> None:
        """Read the lines written since the last call; an incomplete last line is ignored.

        If the file was removed, truncated or replaced, write the decisions that it lacks again.
        """
        require_regular(self.path)
        try:
            with self.path.open("rb") as file:
                file.seek(self._end - len(self._last))
                is_same, new = file.read(len(self._last)) == self._last, file.read()
        except FileNotFoundError:
            is_same, new = not self._known, b""
        if not is_same:
            self._restore()
            return
        complete = new[: new.rfind(b"\n") + 1]
        self._known += parse(complete, self.path)
        self._end += len(complete)
        self._last = complete.splitlines(keepends=True)[-1] if complete else self._last

    def _restore(self) -> None:
        """Write a new file with the decisions that were acknowledged, and those of the file that now has its name."""
        with self._lock:
            found = self.path.read_bytes() if self.path.exists() else b""
            known = dict.fromkeys(self._known) | dict.fromkeys(parse(found[: found.rfind(b"\n") + 1], self.path))
            lines = [_line(decision) for decision in known]
            try:
                with replacing(self.path) as temporary, temporary.open("wb") as file:
                    file.writelines(lines)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise InputError(
                    f"{self.path}: was removed or changed, and cannot be written again ({error.strerror}); free disk "
                    "space or restore the folder"
                ) from error
        self._known, self._end, self._last = list(known), sum(map(len, lines)), lines[-1] if lines else b""

    def _write(self, decision: Decision) -> None:
        """Append after the last complete line; an incomplete line was never acknowledged and is overwritten."""
        line = _line(decision)
        try:
            with self.path.open("r+b" if self.path.exists() else "xb") as file:
                file.seek(self._end)
                file.write(line)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, self._end)  # a decision reported as not saved must not reappear
            raise InputError(
                f"{self.path}: the decision is not saved ({error.strerror}); free disk space and repeat it"
            ) from error
        self._known.append(decision)
        self._end += len(line)
        self._last = line


def parse(text: bytes, path: Path) -> list[Decision]:
    """Parse complete lines; zeros and empty lines, which a power cut may leave, are ignored.

    Raises:
        InputError: a line is not a decision.
    """
    try:
        lines = [line.strip(b"\0 \r") for line in text.split(b"\n")]
        return [Decision.model_validate_json(line) for line in lines if line]
    except ValidationError as error:
        raise InputError(f"{path}: contains a line that is no decision; correct or remove it ({error})") from error


def count_decisions(decisions: Iterable[Decision], reviewer: str, image: str) -> int:
    """Return the number of decisions of one person on one image, including undone ones."""
    return sum(decision.reviewer == reviewer and decision.image == image for decision in decisions)


def active_decisions(decisions: Iterable[Decision], reviewer: str) -> list[Decision]:
    """Return the decisions of one person that were not undone, in order."""
    stack: list[Decision] = []
    for decision in decisions:
        if decision.reviewer == reviewer and not decision.undo:
            stack.append(decision)
        elif decision.reviewer == reviewer and stack:
            stack.pop()
    return stack


def merge_logs(logs: Sequence[Sequence[Decision]]) -> list[Decision]:
    """Merge logs of the same pool: the longest first, then the decisions missing in it, in their own order."""
    merged: dict[Decision, None] = {}
    for log in sorted(logs, key=len, reverse=True):
        merged |= dict.fromkeys(log)
    return list(merged)


def _line(decision: Decision) -> bytes:
    return decision.model_dump_json(ensure_ascii=True).encode() + b"\n"
