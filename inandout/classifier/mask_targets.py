"""Targets of the mask head: the masks of training images on its grid of cells."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import adaptive_avg_pool2d

from inandout.data.config import Geometry
from inandout.data.geometry import fit_mask
from inandout.data.images import Mask, read_mask
from inandout.data.manifest import Sample

Targets = npt.NDArray[np.float32]
"""(N, h, w) share of each cell in the mask, 0..1, at 1/8 of the image size; NaN everywhere if the mask is unknown."""

CELL = 8
"""Width of a cell in pixels."""


def load_targets(samples: Sequence[Sample], geometry: Geometry) -> Targets:
    """Return targets (N, h, w) of N samples.

    Good parts have an empty target. The mask of a defect without a mask file is unknown.
    """
    size = -(-geometry.height // CELL), -(-geometry.width // CELL)
    targets = np.zeros((len(samples), *size), np.float32)
    for target, sample in zip(targets, samples, strict=True):
        if sample.label == 1:
            target[:] = _cells(fit_mask(read_mask(sample.mask), geometry), size) if sample.mask else np.nan
    return targets


def _cells(mask: Mask, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    cells: npt.NDArray[np.float32] = adaptive_avg_pool2d(torch.from_numpy(mask[None]).float(), size)[0].numpy()
    return cells
