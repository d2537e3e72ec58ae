"""Automatic warnings about images. Flags inform the reviewer and decide nothing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from inandout.data.images import ImageArray
from inandout.diffusion.sample.quality_filter import QualityFilter

Flag = Literal["black", "flat", "duplicate", "copy", "unchanged", "far", "contrary"]

MEANING: Mapping[Flag, str] = {
    "black": "nearly all black",
    "flat": "uniform, shows nothing",
    "duplicate": "looks the same as an earlier image",
    "copy": "looks the same as a training image",
    "unchanged": "does not differ from its source image",
    "far": "brightness, texture or colour differs from the real defects",
    "contrary": "a classifier that was not trained on this image predicts the other label",
}
"""Descriptions of the flags, in the order of the page."""

_MIN_CHANGE = 3.0
"""Minimum difference in grey levels of at least one pixel of a synthetic anomaly."""
_MIN_REAL = 5
"""Minimum number of real positives for the flag `far`."""
_FAR = 2.0
"""Maximum distance to the nearest real positive, relative to the distances between real positives."""


class Flagger:
    """Flags images one by one; of two images that look the same, the later one is flagged."""

    def __init__(self, training: Sequence[ImageArray], positives: Sequence[ImageArray]):
        """Store the reference images.

        Args:
            training: images (H, W, 3) of the training part, in the size of the images to flag.
            positives: the images of `training` that show a defect.
        """
        self._quality_filter = QualityFilter(training)
        self._real = np.array([_appearance(image) for image in positives])

    def judge(self, image: ImageArray, source: ImageArray | None = None) -> list[Flag]:
        """Return the flags of an image (H, W, 3); `source` is the image of the same size that was changed locally.

        With a source, duplicates are not flagged, because all anomalies on one background look alike.
        """
        flags: list[Flag] = []
        reason = self._quality_filter.judge(image) if source is None else QualityFilter([]).judge(image)
        if reason is not None and reason != "non-finite":
            flags.append(reason)
        if source is not None and change(image, source).max() < _MIN_CHANGE:
            flags.append("unchanged")
        if reason not in ("black", "flat") and self._is_far(image):
            flags.append("far")
        return flags

    def _is_far(self, image: ImageArray) -> bool:
        if len(self._real) < _MIN_REAL:
            return False
        spread = np.maximum(self._real.std(axis=0), 0.02)
        real, features = self._real / spread, _appearance(image) / spread
        distances = np.linalg.norm(real[:, None] - real[None], axis=2) + np.diag(np.full(len(real), np.inf))
        nearest = np.linalg.norm(real - features, axis=1).min()
        return bool(nearest > _FAR * max(distances.min(axis=1).max(), 1.0))


def change(image: ImageArray, source: ImageArray) -> npt.NDArray[np.float64]:
    """Return the largest absolute difference (H, W) over the three channels, 0..255."""
    return np.abs(image.astype(np.float64) - source).max(axis=2)


def count_flags(flags: Iterable[Sequence[Flag]]) -> dict[Flag, int]:
    """Return the number of images with each flag that occurs, in the order of the page."""
    flat = [flag for image_flags in flags for flag in image_flags]
    return {flag: flat.count(flag) for flag in MEANING if flag in flat}


def _appearance(image: ImageArray) -> npt.NDArray[np.float64]:
    """Return five features of about 0..1: mean of each channel, contrast, and logarithmic roughness."""
    scaled = image.astype(np.float64) / 255
    grey = scaled.mean(axis=2)
    gradient = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    return np.array([*scaled.mean(axis=(0, 1)), grey.std(), np.log10(gradient + 1e-3)])
