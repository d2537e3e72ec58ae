"""Weights of the squared errors of an image, higher on its defect."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from inandout.data.images import Mask
from inandout.errors import InputError


def check_masks(masks: Sequence[Mask | None], mask_weight: float) -> None:
    """Check that there is a defect to weight.

    Raises:
        InputError: `mask_weight` is above 1, and no mask shows a defect.
    """
    if mask_weight > 1 and not any(mask is not None and mask.any() for mask in masks):
        raise InputError(
            f"mask_weight = {mask_weight:g}: no image to fine-tune on has a mask of a defect; give a dataset with "
            "masks and shot=few or shot=full, or mask_weight=1"
        )


def defect_weights(mask: Mask | None, factor: int, mask_weight: float) -> Tensor | None:
    """Return weights (1, H / factor, W / factor) with mean 1, or None for a weight of 1 everywhere.

    Pixels of the latent on the defect, and their neighbours on 8 sides, have `mask_weight` times the weight of others.

    Args:
        mask: (H, W), with sides that are multiples of `factor`; None = not known.
        factor: pixels of the image per pixel of the latent, along a side.
        mask_weight: 1 or more.
    """
    if mask is None or mask_weight == 1:
        return None
    on_defect = max_pool2d(torch.from_numpy(mask).float()[None], factor)
    weights = 1 + (mask_weight - 1) * max_pool2d(on_defect, 3, stride=1, padding=1)
    return weights / weights.mean()
