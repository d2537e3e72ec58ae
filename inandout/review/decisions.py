"""Decisions of reviewers: a file with one line a decision, which only ever grows."""

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

Reviewer = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
"""Name of a person, as typed."""
Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=300)]
"""Why, in a few words; any characters."""
ImageId = Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
"""Digest of an image (`inandout.data.manifest.digest`)."""


class Decision(BaseModel):
    """What one person said of one image at one moment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: ImageId
    decision: Review
    """Empty: taken back."""
    reason: Reason = ""
    reviewer: Reviewer
    when: datetime
    """By the clock of the machine; what came later is told from the order of the lines."""
    undo: bool = False
    """Whether it stands for what held before the last decision of the same person."""

    @model_validator(mode="before")
    @classmethod
    def _rename_verdict(cls, values: Any) -> Any:
        """Older logs name the decision `verdict`; what people decided must stay readable."""
        if isinstance(values, dict) and "verdict" in values:
            return {"decision" if key == "verdict" else key: value for key, value in values.items()}
        return values


class ConflictError(Exception):
    """The same person has decided on the same image since, in another tab."""


class DecisionLog:
    """The decisions on one pool, on disk; any number of threads and processes can write."""

    def __init__(self, path: Path):
        """Begin the file `path`, or go on with it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._mutex = threading.Lock()
        self._known: list[Decision] = []
        self._end = 0  # of the last whole line that was read, in bytes

    def read(self) -> list[Decision]:
        """All decisions so far, in the order in which they came.

        Raises:
            InputError: a line is none.
        """
        with self._mutex:
            self._catch_up()
            return list(self._known)

    def decide(self, image: str, decision: Review, reason: str, reviewer: str, seen: int) -> Decision:
        """Add a decision; it is on the disk when this returns.

        Args:
            image: its digest.
            decision: keep, reject, unsure, or empty to take back.
            reason: free text.
            reviewer: who decides.
            seen: how many decisions of theirs on this image the person knew of.

        Raises:
            ConflictError: there are more than `seen`, so what the person looked at was out of date.
            InputError: it cannot be written.
        """
        made = Decision(image=image, decision=decision, reason=reason, reviewer=reviewer, when=datetime.now(UTC))
        with self._mutex, self._lock:
            self._catch_up()
            if count_of(self._known, made.reviewer, made.image) != seen:
                raise ConflictError
            self._write(made)
        return made

    def undo(self, reviewer: str) -> Decision | None:
        """Take back the last decision of a person that was not taken back yet: what held before it holds again.

        None where there is none.
        """
        with self._mutex, self._lock:
            self._catch_up()
            stack = standing(self._known, reviewer)
            if not stack:
                return None
            last = stack.pop()
            before = next((one for one in reversed(stack) if one.image == last.image), None)
            again = Decision(
                image=last.image, decision=before.decision if before else "",
                reason=before.reason if before else "", reviewer=reviewer, when=datetime.now(UTC), undo=True,
            )  # fmt: skip
            self._write(again)
            return again

    def add(self, decisions: Sequence[Decision]) -> None:
        """Take over decisions that were kept elsewhere, if they are not here already."""
        with self._mutex, self._lock:
            self._catch_up()
            known = set(self._known)
            for one in decisions:
                if one not in known:
                    self._write(one)

    def _catch_up(self) -> None:
        """Read what was written since; a torn last line has no end and does not count."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._end)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._known += parse(whole, self.path)
        self._end += len(whole)

    def _write(self, decision: Decision) -> None:
        """Append after the last whole line: what is torn was never acknowledged to anyone."""
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
                os.truncate(self.path, self._end)  # what is said not to be saved must not come back
            raise InputError(
                f"{self.path}: the decision is not saved ({error.strerror}); make room and repeat it"
            ) from error
        self._known.append(decision)
        self._end += len(line)


def parse(text: bytes, path: Path) -> list[Decision]:
    """Decisions of whole lines.

    Raises:
        InputError: a line is none.
    """
    try:
        return [Decision.model_validate_json(line) for line in text.split(b"\n")[:-1]]
    except ValidationError as error:
        raise InputError(f"{path}: holds a line that is no decision; correct or remove it ({error})") from error


def count_of(decisions: Iterable[Decision], reviewer: str, image: str) -> int:
    """How many decisions of one person on one image there are, those taken back included."""
    return sum(one.reviewer == reviewer and one.image == image for one in decisions)


def standing(decisions: Iterable[Decision], reviewer: str) -> list[Decision]:
    """Decisions of one person that were not taken back by `undo`, in order."""
    stack: list[Decision] = []
    for one in decisions:
        if one.reviewer == reviewer and not one.undo:
            stack.append(one)
        elif one.reviewer == reviewer and stack:
            stack.pop()
    return stack


def merge_logs(logs: Sequence[Sequence[Decision]]) -> list[Decision]:
    """One log from several of the same pool: the longest, then what only others have, each in its own order."""
    merged: dict[Decision, None] = {}
    for log in sorted(logs, key=len, reverse=True):
        merged |= dict.fromkeys(log)
    return list(merged)


def _line(decision: Decision) -> bytes:
    return decision.model_dump_json(ensure_ascii=True).encode() + b"\n"
