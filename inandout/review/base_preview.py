"""What a base alone makes of the prompts and seeds of a pool: drawn when someone looks, and kept."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from inandout.data.images import Picture, write_image
from inandout.data.manifest import Sample


class Twin(NamedTuple):
    """How far the drawing of a twin is."""

    state: Literal["ready", "drawing", "failed"]
    path: Path
    """Where it lies once it is ready."""
    error: str = ""


class Twins:
    """Twins are drawn in a thread, one after the other, what was asked for last first: that is what is looked at."""

    def __init__(self, folder: Path, draw: Callable[[Sample], Picture]):
        """Go on with what `folder` holds; `draw` makes the picture of a row again, without the adapter."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._draw = folder, draw
        self._wanted: dict[str, Sample] = {}
        self._failed: dict[str, str] = {}
        self._news = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    def of(self, picture: str, sample: Sample) -> Twin:
        """The twin of a picture, by its digest; where it is not there yet, it is drawn next."""
        path = self._folder / f"{picture}.png"
        with self._news:
            if path.exists():
                return Twin("ready", path)
            if picture in self._failed:
                return Twin("failed", path, self._failed[picture])
            self._wanted.pop(picture, None)
            self._wanted[picture] = sample
            self._news.notify()
            return Twin("drawing", path)

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: bool(self._wanted))
                picture, sample = self._wanted.popitem()
            try:
                path = self._folder / f"{picture}.png"
                if not path.exists():
                    write_image(path, self._draw(sample))
            except Exception as error:  # the thread goes on, and the page says what it was
                with self._news:
                    self._failed[picture] = str(error)


def has_twin(sample: Sample) -> bool:
    """Whether a picture is one that a base draws otherwise without the adapter."""
    return sample.origin == "ddpm" and sample.seed is not None and bool(sample.alpha)
