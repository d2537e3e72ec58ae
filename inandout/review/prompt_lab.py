"""The prompt lab: generates images for prompts, keeps the history of attempts, and stores the chosen prompts."""

import json
import queue
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from inandout.data.images import ImageArray, write_image
from inandout.data.text import write_text
from inandout.errors import InputError

MAX_IMAGES = 16
"""Maximum number of images per prompt of an attempt."""
_MAX_WAITING = 8  # a longer queue would occupy a machine for an hour


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    if "|" in words:
        raise ValueError("'|' separates prompts in `augment`; leave it out")
    return words


Prompt = Annotated[str, StringConstraints(max_length=300), AfterValidator(_one_line)]
"""One line; runs of white space become one space, as in the tokenizer."""


class GenerationRequest(BaseModel):
    """Parameters of an attempt: one or two prompts, generated from the same seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompts: Annotated[list[Annotated[Prompt, Field(min_length=1)]], Field(min_length=1, max_length=2)]
    negative_prompt: Prompt = ""
    alpha: float = Field(ge=0, le=1)
    guidance: float = Field(ge=1, le=50)
    number: int = Field(ge=1, le=MAX_IMAGES)
    seed: int = Field(ge=0, lt=2**32)


class Attempt(BaseModel):
    """A generation request and its progress."""

    model_config = ConfigDict(extra="forbid")

    id: int
    request: GenerationRequest
    state: Literal["waiting", "drawing", "done", "failed"] = "waiting"
    made: list[int]
    """Number of finished images of each prompt."""
    error: str = ""


Draw = Callable[[GenerationRequest], Iterator[tuple[int, ImageArray]]]
"""Yields (prompt index, image) pairs of a request; raises InputError if the request is invalid."""


class PromptLab:
    """Generates attempts one by one in a background thread and stores finished ones in a folder."""

    def __init__(self, folder: Path, draw: Draw):
        """Load the attempts stored in `folder`; `draw` generates images."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._draw = draw
        self._attempts = [_read(path) for path in sorted(folder.glob("attempt-*/attempt.json"))]
        self._next = 1 + max((attempt.id for attempt in self._attempts), default=0)
        self._waiting: queue.Queue[Attempt] = queue.Queue(_MAX_WAITING)
        self._mutex = threading.Lock()
        threading.Thread(target=self._work, daemon=True).start()

    def attempts(self) -> list[Attempt]:
        """Return all attempts, the oldest first."""
        with self._mutex:
            return [attempt.model_copy(deep=True) for attempt in self._attempts]

    def submit(self, request: GenerationRequest) -> Attempt:
        """Add an attempt to the queue.

        Raises:
            InputError: the queue is full.
        """
        with self._mutex:
            attempt = Attempt(id=self._next, request=request, made=[0] * len(request.prompts))
            try:
                self._waiting.put_nowait(attempt)
            except queue.Full:
                raise InputError(f"{_MAX_WAITING} attempts are waiting, the maximum; wait until one is done") from None
            self._next += 1
            self._attempts.append(attempt)
            return attempt.model_copy(deep=True)

    def image(self, attempt: int, prompt: int, number: int) -> Path | None:
        """Return the path of an image of an attempt; None if it does not exist."""
        path = self._folder_of(attempt) / f"{prompt}-{number:02d}.png"
        return path if path.exists() else None

    def chosen(self) -> list[str]:
        """Return the chosen prompts, in the order in which they were chosen."""
        path = self.folder / "prompts.txt"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def choose(self, prompt: str, use: bool) -> list[str]:
        """Add a prompt to the chosen ones, or remove it, and return the chosen prompts."""
        with self._mutex:
            others = [other for other in self.chosen() if other != prompt]
            lines = [*others, prompt] if use else others
            write_text(self.folder / "prompts.txt", "".join(f"{line}\n" for line in lines))
            return lines

    def option(self) -> str:
        """Return the option of `augment` for the chosen prompts, quoted for a shell; empty if there are none."""
        chosen = self.chosen()
        return f"--prompts {shlex.quote('|'.join(chosen))}" if chosen else ""

    def _work(self) -> None:
        while True:
            attempt = self._waiting.get()
            self._set(attempt, "drawing")
            try:
                self._generate(attempt)
                self._set(attempt, "done")
            except Exception as error:  # the page shows the error and the thread continues
                self._set(attempt, "failed", str(error) if isinstance(error, InputError) else repr(error))

    def _generate(self, attempt: Attempt) -> None:
        """Generate all images; `attempt.json` is written last, so that only complete attempts are loaded again."""
        folder = self._folder_of(attempt.id)
        folder.mkdir(exist_ok=True)
        for prompt, image in self._draw(attempt.request):
            write_image(folder / f"{prompt}-{attempt.made[prompt]:02d}.png", image)
            with self._mutex:
                attempt.made[prompt] += 1
        done = attempt.model_copy(update={"state": "done"})
        write_text(folder / "attempt.json", json.dumps(done.model_dump(mode="json")))

    def _set(self, attempt: Attempt, state: Literal["drawing", "done", "failed"], error: str = "") -> None:
        with self._mutex:
            attempt.state, attempt.error = state, error

    def _folder_of(self, attempt: int) -> Path:
        return self.folder / f"attempt-{attempt:04d}"


def _read(path: Path) -> Attempt:
    return Attempt.model_validate_json(path.read_text(encoding="utf-8"))
