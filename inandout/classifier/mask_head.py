"""Second head of the classifier: a map of defect logits from the backbone's features, trained with masks.

As in mixed supervision (Bozic et al. 2021), masks teach where the defect is, and images without a mask teach only the
label of the image. Here, the two heads are combined after training, see `choose_combination`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

WIDTH = 64
"""Channels of the head's convolutions."""
LEARNING_RATE = 0.001
"""Learning rate of the head's optimiser, AdamW; that of the backbone is an option and depends on its weights."""


class Combination(NamedTuple):
    """Combination of image logit and map score: `(1 - weight) * image + weight * (offset + scale * map)`."""

    weight: float = 0.5
    """Weight of the map, 0..1."""
    scale: float = 1.0
    offset: float = 0.0


class MaskHead(nn.Module):
    """Fuses features at 1/8 and 1/16 of the image size into a map of defect logits at 1/8."""

    combination: Tensor

    def __init__(self, fine: int, coarse: int) -> None:
        """`fine` and `coarse` are the channels of the features at 1/8 and 1/16 of the image size."""
        super().__init__()
        self.fine = _project(fine)
        self.coarse = _project(coarse)
        self.fuse = nn.Sequential(_convolution(2 * WIDTH), _convolution(WIDTH), nn.Conv2d(WIDTH, 1, 1))
        self.register_buffer("combination", torch.tensor(Combination()))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return defect logits (N, h, w) of features (N, C, h, w) and (N, C', h', w'), about half as large."""
        size = (int(fine.shape[2]), int(fine.shape[3]))
        enlarged = interpolate(self.coarse(coarse), size, mode="bilinear", align_corners=False)
        cells: Tensor = self.fuse(torch.cat([self.fine(fine), enlarged], 1))
        return cells[:, 0]

    def combine(self, image: Tensor, cells: Tensor) -> Tensor:
        """Return one logit (N,) from image logits (N,) and maps (N, h, w)."""
        weight, scale, offset = self.combination.to(image.dtype)
        return (1 - weight) * image + weight * (offset + scale * map_scores(cells))


def map_scores(cells: Tensor) -> Tensor:
    """Return the highest logit (N,) of each map (N, h, w)."""
    return cells.flatten(1).amax(1)


def enlarge(cells: Tensor, height: int, width: int) -> Tensor:
    """Return maps (N, h, w) at the size of the image, (N, height, width), by bilinear interpolation."""
    return interpolate(cells[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def mask_loss(cells: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over the images with a known mask of cross-entropy plus dice loss; 0 if no mask is known.

    Args:
        cells: logits (N, h, w).
        targets: (N, h, w), see `Targets`.
    """
    known = ~targets.isnan().flatten(1).any(1)
    if not known.any():
        return cells.sum() * 0
    cells, targets = cells[known], targets[known]
    cross_entropy = binary_cross_entropy_with_logits(cells, targets)
    chance, axes = cells.sigmoid(), (1, 2)
    overlap = 2 * (chance * targets).sum(axes) + 1
    dice = 1 - overlap / (chance.sum(axes) + targets.sum(axes) + 1)
    return cross_entropy + dice.mean()


def _project(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, WIDTH, 1), nn.GroupNorm(8, WIDTH), nn.ReLU())


def _convolution(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, WIDTH, 3, padding=1), nn.GroupNorm(8, WIDTH), nn.ReLU())
