"""Distance of an image to good parts, added to the logit of a classifier with a frozen backbone.

The distance is that of PatchCore (Roth et al. 2022), see `inandout.classifier.nearest`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

_CHUNK = 256
"""Patches of the memory that are compared at a time; bounds the memory of large images."""


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
        nearest = [_distances(rows, chunk).amin(1) for chunk in torch.split(self.memory, _CHUNK)]
        return torch.stack(nearest).amin(0).view(patches.shape[:3])

    def add(self, logits: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return logits (N,) with the distance of the worst patch of each image added."""
        return logits + self.summands(fine, coarse).flatten(1).amax(1)

    def summands(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return what each patch (N, h, w) would add to the logit; the highest of an image is added."""
        scale, offset = self.addition
        return scale * (self(fine, coarse) - offset)


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    """Return distances (N, M) of (N, C) and (M, C); the mode does not depend on N, so that any N can be exported."""
    return torch.cdist(rows, others, compute_mode="use_mm_for_euclid_dist")


def patch_features(fine: Tensor, coarse: Tensor) -> Tensor:
    """Return patch features (N, C + C', h, w) of maps (N, C, h, w) at 1/8 and (N, C', h', w') at 1/16 of the image.

    Each is the mean over 3x3 positions. The coarser map is resized to the finer one.
    """
    fine, coarse = (avg_pool2d(each, 3, 1, 1, count_include_pad=False) for each in (fine, coarse))
    size = (int(fine.shape[2]), int(fine.shape[3]))
    return torch.cat([fine, interpolate(coarse, size, mode="bilinear", align_corners=False)], 1)
