"""Nearest-neighbour anomaly detection on patch features of a frozen network, after PatchCore (Roth et al. 2022).

It sees good parts only. A patch of a new image is as anomalous as its distance to the most similar patch of good parts.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inandout.classifier.backbone import DefectNet
from inandout.classifier.distance_head import Addition, DistanceHead, patch_features
from inandout.classifier.features import evaluate_batches
from inandout.classifier.pixels import Pixels

CANDIDATES = 100_000
"""Maximum number of patches that a coreset is chosen from; bounds the memory."""
_PROJECTED = 128
"""Dimensions of the random projection in which the coreset is chosen."""
_BATCH_SIZE = 16
_ROUNDING = 1e-5
"""Relative error that float32 features may have in batches of another size."""

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
    for batch in evaluate_batches(model, lambda images: patch_features(*model.maps(images)), pixels, _BATCH_SIZE):
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
    head = DistanceHead(memory).to(model.mean.device)
    batches = evaluate_batches(model, lambda images: head(*model.maps(images)), pixels, _BATCH_SIZE)
    found = [batch.cpu().numpy() for batch in batches]
    return np.concatenate(found or [np.empty((0, 1, 1), np.float32)])


def worst(distances: Distances) -> npt.NDArray[np.float64]:
    """Return the distance (N,) of the worst patch of each image."""
    return distances.reshape(len(distances), -1).max(axis=1, initial=0.0).astype(np.float64)


def fit_addition(logits: npt.NDArray[np.float64], distances: npt.NDArray[np.float64]) -> Addition:
    """Return the addition of distances (N,) to logits (N,) of good parts that neither was trained on.

    Both count equally: the scaled distances have the standard deviation of the logits, and the mean 0. Without a
    spread of the logits, beyond rounding, it is 1; without a spread of the distances the scale is 0.
    """
    spread = _spread(distances)
    return Addition((_spread(logits) or 1.0) / spread if spread else 0.0, float(distances.mean()))


def _spread(values: npt.NDArray[np.float64]) -> float:
    """Return the standard deviation, or 0 if it may be rounding of float32."""
    deviation = float(values.std())
    return deviation if deviation > _ROUNDING * float(np.abs(values).max()) else 0.0
