"""What a base alone makes of the prompts and seeds of a pool: drawn when someone looks, and kept."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from inandout.data.images import ImageArray, write_image
from inandout.data.manifest import Sample


class PreviewState(NamedTuple):
    """How far the drawing of a preview is."""

    state: Literal["ready", "drawing", "failed"]
    path: Path
    """Where it lies once it is ready."""
    error: str = ""


class BasePreview:
    """Previews are drawn in a thread, one after the other, what was asked for last first: that is what is looked at."""

    def __init__(self, folder: Path, draw: Callable[[Sample], ImageArray]):
        """Go on with what `folder` holds; `draw` makes the image of a row again, without the adapter."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._draw = folder, draw
        self._wanted: dict[str, Sample] = {}
        self._failed: dict[str, str] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    def of(self, image: str, sample: Sample) -> PreviewState:
        """The preview of an image, by its digest; where it is not there yet, it is drawn next."""
        path = self._folder / f"{image}.png"
        with self._changed:
            if path.exists():
                return PreviewState("ready", path)
            if image in self._failed:
                return PreviewState("failed", path, self._failed[image])
            self._wanted.pop(image, None)
            self._wanted[image] = sample
            self._changed.notify()
            return PreviewState("drawing", path)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._wanted))
                image, sample = self._wanted.popitem()
            try:
                path = self._folder / f"{image}.png"
                if not path.exists():
                    write_image(path, self._draw(sample))
            except Exception as error:  # the thread goes on, and the page says what it was
                with self._changed:
                    self._failed[image] = str(error)


def has_preview(sample: Sample) -> bool:
    """Whether an image is one that a base draws otherwise without the adapter."""
    return sample.origin == "ddpm" and sample.seed is not None and bool(sample.alpha)
