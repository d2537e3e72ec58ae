"""Features of the classifier's last hidden layer."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inandout.classifier.backbone import DefectNet
from inandout.classifier.pixels import Pixels


def features(model: DefectNet, pixels: Pixels, batch_size: int = 32) -> npt.NDArray[np.float32]:
    """Return the input of the last layer (N, C) for pixels (N, H, W, 3), computed in evaluation mode.

    C depends on the backbone, 2048 for a ResNet-50. The mode of the model is restored.
    """
    batches = evaluate_batches(model, model.features, pixels, batch_size)
    empty = torch.empty(0, model.last.in_features)
    return torch.cat([empty, *(batch.float().cpu() for batch in batches)]).numpy()


@torch.no_grad()
def evaluate_batches(
    model: DefectNet, function: Callable[[Tensor], Tensor], pixels: Pixels, batch_size: int
) -> list[Tensor]:
    """Return the results of a function of images on batches of pixels (N, H, W, 3), with `model` in evaluation mode.

    The mode of the model is restored.
    """
    training = model.training
    model.eval()
    starts = range(0, len(pixels), batch_size)
    results = [function(to_tensor(pixels[i : i + batch_size], model.mean.device)) for i in starts]
    model.train(training)
    return results


def to_tensor(pixels: Pixels, device: torch.device) -> Tensor:
    """Convert (N, H, W, 3) to a channels-last tensor (N, 3, H, W), on the CPU without a copy."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2)
