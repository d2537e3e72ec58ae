"""Where the classifier sees a defect: Grad-CAM (Selvaraju et al. 2017) on the defect logit, and how far to trust it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import interpolate

from inandout.classifier.pixels import Pixels
from inandout.classifier.resnet import DefectNet
from inandout.data.images import Mask

HeatMaps = npt.NDArray[np.float32]
"""(N, H, W), 0..1; all 0 where nothing speaks for a defect."""

DILATION = 4
"""Pixels by which a mask grows before a maximum counts as inside: a cell of layer3 is 16 pixels wide."""


class Pointing(NamedTuple):
    """How often heat maps point at the defect, over images with a mask."""

    images: int
    hits: float
    """Share whose maximum lies in the mask, dilated by `DILATION`, 0..1; a map of zeros points nowhere."""
    chance: float
    """The same for a point drawn at random: the mean area of the dilated masks."""
    energy: float
    """Mean share of the heat that lies in the mask itself, 0..1."""

    def sentence(self) -> str:
        """The same for a person."""
        return (
            f"the maximum lies on the defect (mask + {DILATION} px) in {self.hits:.0%} of {self.images} images, "
            f"by chance in {self.chance:.0%}; {self.energy:.0%} of the heat lies in the mask"
        )


def heat_maps(model: DefectNet, pixels: Pixels, batch_size: int = 8) -> HeatMaps:
    """Maps (N, H, W) of pixels (N, H, W, 3), for a model in evaluation mode.

    The mean of the maps of layer3 (finer) and layer4 (surer), each scaled to a maximum of 1 as in pytorch-grad-cam.
    Uses no hooks, so that several threads can ask the same model.
    """
    found = [np.empty((0, *pixels.shape[1:3]), np.float32)]
    for start in range(0, len(pixels), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + batch_size])).to(model.mean.device)
        found.append(_heat(model, batch.permute(0, 3, 1, 2)).cpu().numpy())
    return np.concatenate(found)


def _heat(model: DefectNet, images: Tensor) -> Tensor:
    net = model.resnet
    with torch.no_grad():
        x = net.maxpool(net.relu(net.bn1(net.conv1((images.float() - model.mean) / model.std))))
        x = net.layer3(net.layer2(net.layer1(x)))
    with torch.enable_grad():
        third = x.detach().requires_grad_()
        fourth = net.layer4(third)
        logit = net.fc(net.avgpool(fourth).flatten(1)).sum()
    gradients = torch.autograd.grad(logit, [third, fourth])
    size = (int(images.shape[2]), int(images.shape[3]))
    maps = [_cam(layer.detach(), slope, size) for layer, slope in zip((third, fourth), gradients, strict=True)]
    return _to_one(torch.stack(maps).mean(0))


def _cam(layer: Tensor, slope: Tensor, size: tuple[int, int]) -> Tensor:
    """What of a layer (N, C, h, w) speaks for a defect, as (N, H, W)."""
    cam = (slope.mean((2, 3), keepdim=True) * layer).sum(1, keepdim=True).relu()
    return _to_one(interpolate(cam, size, mode="bilinear", align_corners=False)[:, 0])


def _to_one(maps: Tensor) -> Tensor:
    highest = maps.amax((1, 2), keepdim=True)
    return torch.where(highest > 0, maps / highest.clamp_min(torch.finfo(maps.dtype).tiny), 0)


def pointing(maps: HeatMaps, masks: Sequence[Mask]) -> Pointing:
    """The pointing score (Zhang et al. 2018) and the share of energy of maps (N, H, W), against N masks (H, W).

    There is one or more, and none of the masks is empty.
    """
    grown = [ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=DILATION) for mask in masks]
    hits = [bool(heat.any() and mask.flat[heat.argmax()]) for heat, mask in zip(maps, grown, strict=True)]
    energy = [
        float(heat[mask].sum() / heat.sum()) if heat.any() else 0.0 for heat, mask in zip(maps, masks, strict=True)
    ]
    chance = [float(mask.mean()) for mask in grown]
    return Pointing(len(masks), float(np.mean(hits)), float(np.mean(chance)), float(np.mean(energy)))
