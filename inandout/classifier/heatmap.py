"""Heat maps of the classifier, and their localisation accuracy.

A mask head or distances to good parts give the map itself; without them, it is Grad-CAM of the defect logit (Selvaraju
et al. 2017).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from inandout.classifier.backbone import DefectNet
from inandout.classifier.features import evaluate_batches
from inandout.classifier.mask_head import enlarge
from inandout.classifier.pixels import Pixels
from inandout.data.images import Mask

HeatMaps = npt.NDArray[np.float32]
"""(N, H, W), 0..1; Grad-CAM is all 0 if no activation contributes to the defect logit."""

DILATION = 4
"""Dilation of masks in the pointing game, in pixels; a cell of the finer maps is 16 pixels wide."""


class Pointing(NamedTuple):
    """Localisation accuracy of heat maps, over images with a mask."""

    images: int
    hits: float
    """Share of maps with their maximum in the mask dilated by `DILATION`, 0..1; a map of zeros is a miss."""
    chance: float
    """Expected hits of random points: the mean area of the dilated masks, 0..1."""
    energy: float
    """Mean share of the heat inside the undilated mask, 0..1."""

    def sentence(self) -> str:
        """Return a one-line summary."""
        return (
            f"the maximum is on the defect (mask + {DILATION} px) in {self.hits:.0%} of {self.images} images "
            f"(chance: {self.chance:.0%}); {self.energy:.0%} of the heat is in the mask"
        )


def heat_maps(model: DefectNet, pixels: Pixels, batch_size: int = 8) -> HeatMaps:
    """Return heat maps (N, H, W) of pixels (N, H, W, 3) for a model in evaluation mode.

    With a mask head, a heat map is the probability of a defect in each pixel. With distances and without a mask head,
    it is the distance of each patch to good parts, from 0 for the smallest of the image to 1 for the largest.
    Otherwise, it is the mean of the maps of the last layers at 1/16 of the image size (higher resolution) and at 1/32
    (more semantic), layer3 and layer4 of a ResNet-50, each scaled to a maximum of 1 as in pytorch-grad-cam. Without
    hooks, so that threads can share a model.
    """
    batches = [np.empty((0, *pixels.shape[1:3]), np.float32)]
    for start in range(0, len(pixels), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + batch_size])).to(model.mean.device)
        images = batch.permute(0, 3, 1, 2)
        batches.append(_heat(model, images).cpu().numpy())
    return np.concatenate(batches)


def _heat(model: DefectNet, images: Tensor) -> Tensor:
    """Return heat maps (N, H, W) of images (N, 3, H, W)."""
    if model.mask_head:
        return pixel_logits(model, images).sigmoid()
    if model.distance_head is None:
        return _grad_cam(model, images)
    with torch.no_grad():
        distances = enlarge(model.distance_head(*model.maps(images)), int(images.shape[2]), int(images.shape[3]))
        return _scale_to_one(distances - distances.amin((1, 2), keepdim=True))


def mask_maps(model: DefectNet, pixels: Pixels, batch_size: int = 8) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the defect logits (H, W) of each image of pixels (N, H, W, 3) from a model with a mask head."""
    for batch in evaluate_batches(model, lambda images: pixel_logits(model, images), pixels, batch_size):
        yield from batch.float().cpu().numpy()


@torch.no_grad()
def pixel_logits(model: DefectNet, images: Tensor) -> Tensor:
    """Return the defect logits (N, H, W) of the mask head for images (N, 3, H, W)."""
    assert model.mask_head is not None, "the model has no mask head"
    return enlarge(model.mask_head(*model.maps(images)), int(images.shape[2]), int(images.shape[3]))


def _grad_cam(model: DefectNet, images: Tensor) -> Tensor:
    *_, deepest = model.convolutions()
    with torch.no_grad():
        _, x = model.maps(images)
    with torch.enable_grad():
        fine = x.detach().requires_grad_()
        coarse = deepest(fine)
        logit = model.logits(coarse if model.tile else adaptive_avg_pool2d(coarse, 1).flatten(1)).sum()
    gradients = torch.autograd.grad(logit, [fine, coarse])
    size = (int(images.shape[2]), int(images.shape[3]))
    maps = [_cam(layer.detach(), gradient, size) for layer, gradient in zip((fine, coarse), gradients, strict=True)]
    return _scale_to_one(torch.stack(maps).mean(0))


def _cam(layer: Tensor, gradient: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class activation map (N, H, W) of a layer (N, C, h, w) with gradient `gradient`."""
    cam = (gradient.mean((2, 3), keepdim=True) * layer).sum(1, keepdim=True).relu()
    return _scale_to_one(interpolate(cam, size, mode="bilinear", align_corners=False)[:, 0])


def _scale_to_one(maps: Tensor) -> Tensor:
    highest = maps.amax((1, 2), keepdim=True)
    return torch.where(highest > 0, maps / highest.clamp_min(torch.finfo(maps.dtype).tiny), 0)


def pointing(maps: HeatMaps, masks: Sequence[Mask]) -> Pointing:
    """Score maps (N, H, W) against N masks (H, W) by the pointing game (Zhang et al. 2018) and the heat in the mask.

    N is at least 1, and no mask is empty.
    """
    dilated = [ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=DILATION) for mask in masks]
    hits = [bool(heat.any() and mask.flat[heat.argmax()]) for heat, mask in zip(maps, dilated, strict=True)]
    energy = [
        float(heat[mask].sum() / heat.sum()) if heat.any() else 0.0 for heat, mask in zip(maps, masks, strict=True)
    ]
    chance = [float(mask.mean()) for mask in dilated]
    return Pointing(len(masks), float(np.mean(hits)), float(np.mean(chance)), float(np.mean(energy)))
