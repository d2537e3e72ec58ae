"""What the mask head of a classifier learns from each training image."""

import numpy as np

from inandout.classifier.backbone import DefectNet
from inandout.classifier.mask_targets import Targets, to_targets
from inandout.data.config import Geometry
from inandout.data.images import Mask
from inandout.data.manifest import digests
from inandout.diffusion.sample.visible_change import find_changed
from inandout.errors import InputError
from inandout.stages.classify.part import Part


def mask_targets(model: DefectNet, train: Part, geometry: Geometry) -> Targets | None:
    """Return the targets of the mask head; None without this head.

    The mask of a good part is empty, and that of a defect without a mask file is unknown. An inpainted defect is where
    the image differs visibly from its good part, inside its mask.

    Raises:
        InputError: no training image has a mask with a defect.
    """
    if not model.mask_head:
        return None
    masks = [train.mask(i, geometry) for i in range(len(train.samples))]
    targets = to_targets(_only_changed(train, masks), geometry.height, geometry.width)
    if not np.nansum(targets):
        raise InputError(
            "head = mask: no defect of the training images has a mask; add masks to the data set or MemSeg images "
            "(n_aug, ddpm_ratio below 1), or use head=image"
        )
    return targets


def _only_changed(train: Part, masks: list[Mask | None]) -> list[Mask | None]:
    """Return the masks without the pixels in which an inpainted image equals its good part, its first source."""
    inpainted = [i for i, sample in enumerate(train.samples) if sample.origin == "inpaint" and sample.label == 1]
    if not inpainted:
        return masks
    good = [i for i, sample in enumerate(train.samples) if sample.origin == "real" and sample.label == 0]
    hosts = dict(zip(digests([train.samples[i].image for i in good]), good, strict=True))
    for i in inpainted:
        mask, host = masks[i], hosts.get(next(iter(train.samples[i].sources), ""))
        if mask is not None and host is not None:
            masks[i] = mask & find_changed(train.pixels[i], train.pixels[host])
    return masks
