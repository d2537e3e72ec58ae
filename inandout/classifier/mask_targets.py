"""Targets of the mask head: the masks of training images on its grid of cells."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import adaptive_avg_pool2d

from inandout.data.images import Mask

Targets = npt.NDArray[np.float32]
"""(N, h, w) share of each cell in the mask, 0..1, at 1/8 of the image size; NaN everywhere if the mask is unknown."""

CELL = 8
"""Width of a cell in pixels."""


def to_targets(masks: Sequence[Mask | None], height: int, width: int) -> Targets:
    """Return the targets (N, h, w) of N masks (height, width); None = the mask is unknown."""
    size = -(-height // CELL), -(-width // CELL)
    targets = np.full((len(masks), *size), np.nan, np.float32)
    for target, mask in zip(targets, masks, strict=True):
        if mask is not None:
            target[:] = adaptive_avg_pool2d(torch.from_numpy(mask[None]).float(), size)[0].numpy()
    return targets
