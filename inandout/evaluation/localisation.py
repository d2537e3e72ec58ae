"""Metrics of maps of defect scores against masks, in memory that does not depend on the number of pixels.

Scores are rounded to float16 (three significant digits) and counted in 65,536 bins, one for each float16 number. Every
metric equals that of the rounded scores.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.metrics import auc

from inandout.data.images import Mask
from inandout.evaluation.metrics import Floats

MAX_FPR = 0.3
"""Limit of the false positive rate of AUPRO, as usual (Bergmann et al. 2020)."""
SMALL, LARGE = 64, 1024
"""Areas in pixels: small defects are below the first, one cell of the mask head; large ones are at least the second."""
_BINS = 1 << 16

ScoreMap = npt.NDArray[np.float32]
"""(H, W)."""


class PixelCounts:
    """Histogram of the pixel scores of images with a known mask."""

    def __init__(self) -> None:
        """Start empty."""
        self._defect = np.zeros(_BINS)
        self._good = np.zeros(_BINS)
        self._regions = np.zeros(_BINS)
        self._n_regions = 0

    def add(self, scores: ScoreMap, mask: Mask) -> None:
        """Count the finite scores (H, W) of an image with the mask (H, W), empty for a good part."""
        keys = _keys(scores)
        self._defect += np.bincount(keys[mask], minlength=_BINS)
        self._good += np.bincount(keys[~mask], minlength=_BINS)
        numbers, count = ndimage.label(mask, np.ones((3, 3)))
        if count:
            share = 1 / np.bincount(numbers[mask], minlength=count + 1)[1:]
            self._regions += np.bincount(keys[mask], share[numbers[mask] - 1], _BINS)
            self._n_regions += count

    @property
    def defined(self) -> bool:
        """Whether both defect pixels and good pixels were counted."""
        return bool(self._defect.any() and self._good.any())

    def average_precision(self) -> float:
        """Return the average precision over pixels, as scikit-learn computes it."""
        hits, alarms = _from_highest(self._defect), _from_highest(self._good)
        precision = hits / np.maximum(hits + alarms, 1)
        return float((np.diff(hits, prepend=0) * precision).sum() / hits[-1])

    def aupro(self) -> float:
        """Return the area under the per-region overlap, 0..1, for false positive rates up to `MAX_FPR`.

        The per-region overlap of a threshold is the mean over connected defect regions of the share of their pixels at
        or above it; the rate is over all good pixels. The area is divided by `MAX_FPR`.
        """
        rate = np.append(0, _from_highest(self._good) / self._good.sum())
        overlap = np.append(0, _from_highest(self._regions) / self._n_regions)
        inside = rate <= MAX_FPR
        at_limit = np.interp(MAX_FPR, rate, overlap)
        return float(auc(np.append(rate[inside], MAX_FPR), np.append(overlap[inside], at_limit)) / MAX_FPR)

    def iou(self, threshold: float) -> float:
        """Return the intersection over union of defect pixels and pixels with scores of at least `threshold`, 0..1."""
        lowest = int(_keys(np.array(threshold, np.float32)))
        hits = self._defect[lowest:].sum()
        return float(hits / (self._defect.sum() + self._good[lowest:].sum()))

    def best_iou_threshold(self) -> float:
        """Return the threshold with the highest `iou`, one of the counted scores."""
        hits, alarms = _from_highest(self._defect), _from_highest(self._good)
        best = int((hits / (hits[-1] + alarms)).argmax())
        return float(_scores(np.array(_BINS - 1 - best)))


def recall_by_size(areas: Sequence[int], detected: npt.NDArray[np.bool_]) -> dict[str, tuple[int, float]]:
    """Return the number of defects and the recall of each class of size that occurs.

    Args:
        areas: area of each of N defects in pixels; 0 is left out.
        detected: (N,) whether it was found.
    """
    names = ["" if not area else "small" if area < SMALL else "medium" if area < LARGE else "large" for area in areas]
    return recall_by_kind(names, detected)


def recall_by_kind(kinds: Sequence[str], detected: npt.NDArray[np.bool_]) -> dict[str, tuple[int, float]]:
    """Return the number of defects and the recall of each kind; "" is left out."""
    array = np.array(kinds)
    return {
        str(kind): (int((array == kind).sum()), float(detected[array == kind].mean()))
        for kind in np.unique(array)
        if kind
    }


def _keys(scores: ScoreMap) -> npt.NDArray[np.uint16]:
    """Return the numbers 0..65535 of scores, in the same order, after rounding to float16."""
    bits = (np.clip(scores, -65504, 65504).astype(np.float16) + np.float16(0)).view(np.uint16)  # -0 becomes 0
    keys: npt.NDArray[np.uint16] = np.where(bits >> 15, ~bits, bits | 0x8000).astype(np.uint16)
    return keys


def _scores(keys: npt.NDArray[np.integer]) -> npt.NDArray[np.float16]:
    """Return the scores of `_keys`."""
    bits = np.where(keys >> 15, keys & 0x7FFF, ~keys).astype(np.uint16)
    return bits.view(np.float16)


def _from_highest(counts: Floats) -> Floats:
    """Return cumulative counts (65536,) from the highest score."""
    return np.cumsum(counts[::-1])
