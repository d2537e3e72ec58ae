"""What a machine can say against an image. Flags are shown to the reviewer; none decides alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from inandout.data.images import ImageArray
from inandout.diffusion.sample.quality_filter import QualityFilter

Flag = Literal["black", "flat", "duplicate", "copy", "unchanged", "far", "contrary"]

MEANING: Mapping[Flag, str] = {
    "black": "nearly all black",
    "flat": "of one tone, nothing is to be seen",
    "duplicate": "shows the same as an earlier image",
    "copy": "shows the same as an image of the training part",
    "unchanged": "nothing differs from the image that it was made from",
    "far": "brighter, darker, rougher, smoother or of another colour than the real defects",
    "contrary": "a classifier that has not seen this image says the other label",
}
"""A flag in words, in the order of the page."""

_LEAST_CHANGE = 3.0
"""Grey levels that at least one pixel of a synthetic anomaly differs by."""
_FEWEST_REAL = 5
"""Real positives that `far` needs."""
_FAR = 2.0
"""How many times as far from its nearest real positive as these are from each other, at most."""


class Flagger:
    """Flags images one after the other; of two that show the same, the later one is flagged."""

    def __init__(self, training: Sequence[ImageArray], positives: Sequence[ImageArray]):
        """Remember what to compare with.

        Args:
            training: images (H, W, 3) of the training part, cut as those to be judged.
            positives: those of them that show a defect.
        """
        self._quality_filter = QualityFilter(training)
        self._real = np.array([_look(image) for image in positives])

    def judge(self, image: ImageArray, source: ImageArray | None = None) -> list[Flag]:
        """Flags of an image (H, W, 3); `source` is the one of the same size that it was made from by a local change.

        With a source, being like others says nothing: every anomaly on one background is.
        """
        found: list[Flag] = []
        reason = self._quality_filter.judge(image) if source is None else QualityFilter([]).judge(image)
        if reason is not None and reason != "non-finite":
            found.append(reason)
        if source is not None and change(image, source).max() < _LEAST_CHANGE:
            found.append("unchanged")
        if reason not in ("black", "flat") and self._is_far(image):
            found.append("far")
        return found

    def _is_far(self, image: ImageArray) -> bool:
        if len(self._real) < _FEWEST_REAL:
            return False
        spread = np.maximum(self._real.std(axis=0), 0.02)
        real, one = self._real / spread, _look(image) / spread
        apart = np.linalg.norm(real[:, None] - real[None], axis=2) + np.diag(np.full(len(real), np.inf))
        nearest = np.linalg.norm(real - one, axis=1).min()
        return bool(nearest > _FAR * max(apart.min(axis=1).max(), 1.0))


def change(image: ImageArray, source: ImageArray) -> npt.NDArray[np.float64]:
    """(H, W) difference in grey levels, 0..255, the largest of the three channels."""
    return np.abs(image.astype(np.float64) - source).max(axis=2)


def count_flags(flags: Iterable[Sequence[Flag]]) -> dict[Flag, int]:
    """How many images have each flag, in the order of the page; only those there are."""
    flat = [flag for each in flags for flag in each]
    return {flag: flat.count(flag) for flag in MEANING if flag in flat}


def _look(image: ImageArray) -> npt.NDArray[np.float64]:
    """What the eye sees first, each about 0..1: three colours, contrast, roughness (logarithmic)."""
    scaled = image.astype(np.float64) / 255
    grey = scaled.mean(axis=2)
    gradient = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    return np.array([*scaled.mean(axis=(0, 1)), grey.std(), np.log10(gradient + 1e-3)])
