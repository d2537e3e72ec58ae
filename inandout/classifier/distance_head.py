"""Distance of an image to good parts, added to the logit of a classifier with a frozen backbone.

PatchCore (Roth et al. 2022) defines the distance, see `inandout.classifier.nearest`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

_CHUNK = 256
"""Patches of the memory that a batch is compared with at a time."""


class Addition(NamedTuple):
    """Logit of an image and its distance together: `logit + scale * (distance - offset)`."""

    scale: float = 1.0
    offset: float = 0.0


class DistanceHead(nn.Module):
    """Compares patches of images with the patches of good parts; nothing is learned by gradients."""

    memory: Tensor
    addition: Tensor

    def __init__(self, memory: Tensor) -> None:
        """`memory` are patch features of good parts (M, C), see `patch_features`."""
        super().__init__()
        self.register_buffer("memory", memory)
        self.register_buffer("addition", torch.tensor(Addition()))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return the distances (N, h, w) of feature maps (N, C, h, w) and (N, C', h', w') to the nearest patch."""
        patches = patch_features(fine, coarse).permute(0, 2, 3, 1)
        rows = patches.flatten(0, 2)
        return (rows - self.memory[self._nearest(rows)]).norm(dim=1).view(patches.shape[:3])

    def add(self, logits: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return logits (N,) with the distance of the worst patch of each image added."""
        scale, offset = self.addition
        return logits + scale * (self(fine, coarse).flatten(1).amax(1) - offset)

    def _nearest(self, rows: Tensor) -> Tensor:
        """Return the indices (N,) of the patches in the memory that are nearest to rows (N, C)."""
        centre = self.memory.mean(0)  # smaller numbers have smaller rounding errors
        rows = rows - centre
        values, indices = [], []
        for number, chunk in enumerate(torch.split(self.memory - centre, _CHUNK)):
            # the square of the distance without that of the row, which does not change the order
            value, index = (chunk.square().sum(1) - 2 * rows @ chunk.T).min(1)
            values.append(value)
            indices.append(index + number * _CHUNK)
        best = torch.stack(values).argmin(0, keepdim=True)
        return torch.stack(indices).gather(0, best)[0]


def patch_features(fine: Tensor, coarse: Tensor) -> Tensor:
    """Return patch features (N, C + C', h, w) of maps (N, C, h, w) at 1/8 and (N, C', h', w') at 1/16 of the image.

    Each is the mean over 3x3 positions. The coarser map is resized to the finer one.
    """
    fine, coarse = (avg_pool2d(each, 3, 1, 1, count_include_pad=False) for each in (fine, coarse))
    size = (int(fine.shape[2]), int(fine.shape[3]))
    return torch.cat([fine, interpolate(coarse, size, mode="bilinear", align_corners=False)], 1)
