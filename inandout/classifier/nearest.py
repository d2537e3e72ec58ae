"""Nearest-neighbour anomaly detection on patch features of a frozen network, after PatchCore (Roth et al. 2022).

It sees good parts only. A patch of a new image is as anomalous as its distance to the most similar patch of good parts.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from inandout.classifier.backbone import DefectNet
from inandout.classifier.features import to_tensor
from inandout.classifier.pixels import Pixels

CANDIDATES = 100_000
"""Maximum number of patches that a coreset is chosen from; bounds the memory."""
_PROJECTED = 128
"""Dimensions of the random projection in which the coreset is chosen."""

Distances = npt.NDArray[np.float32]
"""(N, h, w), distance of each patch to the most similar patch of the memory."""


def build_memory(model: DefectNet, pixels: Pixels, size: int, seed: int) -> Tensor:
    """Return the patch features (M, C) of good parts, M <= `size`.

    The memory is a greedy coreset of up to `CANDIDATES` random patches, equally many of each image.

    Args:
        model: network with a frozen backbone.
        pixels: good parts (N, H, W, 3).
        size: maximum number of patches, 1 or more.
        seed: seed of the candidates, the projection and the first patch.
    """
    generator = torch.Generator().manual_seed(seed)
    share = max(CANDIDATES // len(pixels), 1)
    candidates = []
    for batch in _patch_features(model, pixels):
        for image in batch.flatten(2).permute(0, 2, 1).cpu():
            candidates.append(image[torch.randperm(len(image), generator=generator)[:share]])
    patches = torch.cat(candidates)
    return patches[greedy_coreset(patches, size, generator)]


def greedy_coreset(patches: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return indices (M,) of patches (N, C), M = min(size, N), chosen by greedy k-center (Sener and Savarese 2018).

    Each patch is the one that is farthest from those chosen before; the first is random.
    """
    if patches.shape[1] > _PROJECTED:
        patches = patches @ torch.randn(patches.shape[1], _PROJECTED, generator=generator) / _PROJECTED**0.5
    squares = patches.square().sum(1)
    chosen = [int(torch.randint(len(patches), (1,), generator=generator))]
    nearest = torch.full_like(squares, torch.inf)
    for _ in range(min(size, len(patches)) - 1):
        last = chosen[-1]
        torch.minimum(nearest, squares + squares[last] - 2 * (patches @ patches[last]), out=nearest)
        nearest[last] = -1.0  # rounding never chooses a patch twice
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)


def patch_distances(model: DefectNet, memory: Tensor, pixels: Pixels) -> Distances:
    """Return distances (N, h, w) of pixels (N, H, W, 3) to a memory (M, C); h and w are H and W divided by 8."""
    memory, found = memory.to(model.mean.device), [np.empty((0, 1, 1), np.float32)]
    for batch in _patch_features(model, pixels):
        rows = batch.permute(0, 2, 3, 1)
        distances = torch.stack([torch.cdist(image.flatten(0, 1), memory).amin(1) for image in rows])
        found.append(distances.view(rows.shape[:3]).cpu().numpy())
    return np.concatenate(found[1:] or found)


@torch.no_grad()
def _patch_features(model: DefectNet, pixels: Pixels, batch_size: int = 16) -> Iterator[Tensor]:
    """Yield patch features (B, C, h, w) of batches, from the last layers at 1/8 and 1/16 of the image size.

    Each is the mean over 3x3 positions. The coarser layer is resized to the finer one.
    """
    model.eval()
    down_to_8, down_to_16, _ = model.convolutions()
    for start in range(0, len(pixels), batch_size):
        at_8 = down_to_8(model.normalise(to_tensor(pixels[start : start + batch_size], model.mean.device)))
        maps = (at_8, down_to_16(at_8))
        fine, coarse = (avg_pool2d(each, 3, 1, 1, count_include_pad=False) for each in maps)
        size = (int(fine.shape[2]), int(fine.shape[3]))
        yield torch.cat([fine, interpolate(coarse, size, mode="bilinear", align_corners=False)], 1)
