"""The prompt lab: images of prompts that people try, the history of all tries, and the prompts they chose."""

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
"""Images of a prompt and a try."""
_WAITING = 8  # tries that may wait; more would keep a machine busy for an hour


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    if "|" in words:
        raise ValueError("'|' separates prompts in `augment`; leave it out")
    return words


Prompt = Annotated[str, StringConstraints(max_length=300), AfterValidator(_one_line)]
"""One line; white space counts as one space, as it does for the model."""


class GenerationRequest(BaseModel):
    """What a try asks for: one or two prompts, drawn from the same seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompts: Annotated[list[Annotated[Prompt, Field(min_length=1)]], Field(min_length=1, max_length=2)]
    negative_prompt: Prompt = ""
    alpha: float = Field(ge=0, le=1)
    guidance: float = Field(ge=1, le=50)
    number: int = Field(ge=1, le=MAX_IMAGES)
    seed: int = Field(ge=0, lt=2**32)


class Attempt(BaseModel):
    """A wish, and what has become of it."""

    model_config = ConfigDict(extra="forbid")

    id: int
    request: GenerationRequest
    state: Literal["waiting", "drawing", "done", "failed"] = "waiting"
    made: list[int]
    """Images that are there, a number a prompt."""
    error: str = ""


Draw = Callable[[GenerationRequest], Iterator[tuple[int, ImageArray]]]
"""Images of a wish with the place of their prompt, one after the other; raises InputError for what cannot be."""


class PromptLab:
    """Tries are drawn one after the other in a thread; what is done lies in a folder and is there the next time."""

    def __init__(self, folder: Path, draw: Draw):
        """Go on with what `folder` holds."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._draw = draw
        self._attempts = [_read(path) for path in sorted(folder.glob("attempt-*/attempt.json"))]
        self._next = 1 + max((one.id for one in self._attempts), default=0)
        self._waiting: queue.Queue[Attempt] = queue.Queue(_WAITING)
        self._mutex = threading.Lock()
        threading.Thread(target=self._work, daemon=True).start()

    def attempts(self) -> list[Attempt]:
        """All of them, the oldest first."""
        with self._mutex:
            return [one.model_copy(deep=True) for one in self._attempts]

    def submit(self, request: GenerationRequest) -> Attempt:
        """Put a try behind those that wait.

        Raises:
            InputError: too many wait already.
        """
        with self._mutex:
            one = Attempt(id=self._next, request=request, made=[0] * len(request.prompts))
            try:
                self._waiting.put_nowait(one)
            except queue.Full:
                raise InputError(f"{_WAITING} tries are waiting already; wait until one of them is done") from None
            self._next += 1
            self._attempts.append(one)
            return one.model_copy(deep=True)

    def image(self, number: int, prompt: int, place: int) -> Path | None:
        """An image of a try; None where there is none."""
        path = self._folder_of(number) / f"{prompt}-{place:02d}.png"
        return path if path.exists() else None

    def chosen(self) -> list[str]:
        """The prompts to use, in the order in which they were chosen."""
        path = self.folder / "prompts.txt"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def choose(self, prompt: str, use: bool) -> list[str]:
        """Add a prompt to those to use, or take it away; the list then."""
        with self._mutex:
            rest = [one for one in self.chosen() if one != prompt]
            lines = [*rest, prompt] if use else rest
            write_text(self.folder / "prompts.txt", "".join(f"{line}\n" for line in lines))
            return lines

    def option(self) -> str:
        """What to type after `augment` to use the chosen prompts, quoted for a shell; empty where there are none."""
        chosen = self.chosen()
        return f"--prompts {shlex.quote('|'.join(chosen))}" if chosen else ""

    def _work(self) -> None:
        while True:
            one = self._waiting.get()
            self._set(one, "drawing")
            try:
                self._draw_all(one)
                self._set(one, "done")
            except Exception as error:  # the thread goes on, and the page says what it was
                self._set(one, "failed", str(error) if isinstance(error, InputError) else repr(error))

    def _draw_all(self, one: Attempt) -> None:
        """`attempt.json` is written last, so that only a whole try is remembered."""
        folder = self._folder_of(one.id)
        folder.mkdir(exist_ok=True)
        for prompt, image in self._draw(one.request):
            write_image(folder / f"{prompt}-{one.made[prompt]:02d}.png", image)
            with self._mutex:
                one.made[prompt] += 1
        whole = one.model_copy(update={"state": "done"})
        write_text(folder / "attempt.json", json.dumps(whole.model_dump(mode="json")))

    def _set(self, one: Attempt, state: Literal["drawing", "done", "failed"], error: str = "") -> None:
        with self._mutex:
            one.state, one.error = state, error

    def _folder_of(self, number: int) -> Path:
        return self.folder / f"attempt-{number:04d}"


def _read(path: Path) -> Attempt:
    return Attempt.model_validate_json(path.read_text(encoding="utf-8"))
