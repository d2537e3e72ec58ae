"""Previews of a pool's prompts and seeds without the adapter, generated on demand and cached."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from inandout.data.images import ImageArray, write_image
from inandout.data.manifest import Sample


class PreviewState(NamedTuple):
    """Status of a preview."""

    state: Literal["ready", "drawing", "failed"]
    path: Path
    """File of the preview once it is ready."""
    error: str = ""


class BasePreview:
    """Generates previews in a background thread, the most recently requested first."""

    def __init__(self, folder: Path, draw: Callable[[Sample], ImageArray]):
        """Cache previews in `folder`; `draw` generates the image of a sample again, without the adapter."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._draw = folder, draw
        self._requested: dict[str, Sample] = {}
        self._failed: dict[str, str] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    def of(self, image: str, sample: Sample) -> PreviewState:
        """Return the preview of an image by its digest; a missing preview is generated next."""
        path = self._folder / f"{image}.png"
        with self._changed:
            if path.exists():
                return PreviewState("ready", path)
            if image in self._failed:
                return PreviewState("failed", path, self._failed[image])
            self._requested.pop(image, None)
            self._requested[image] = sample
            self._changed.notify()
            return PreviewState("drawing", path)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._requested))
                image, sample = self._requested.popitem()
            try:
                path = self._folder / f"{image}.png"
                if not path.exists():
                    write_image(path, self._draw(sample))
            except Exception as error:  # the page shows the error and the thread continues
                with self._changed:
                    self._failed[image] = str(error)


def has_preview(sample: Sample) -> bool:
    """Return whether an image was generated with an adapter and can be generated again without it."""
    return sample.origin == "ddpm" and sample.seed is not None and bool(sample.alpha)
