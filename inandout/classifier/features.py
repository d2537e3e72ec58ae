"""Features of the classifier's last hidden layer."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inandout.classifier.backbone import DefectNet
from inandout.classifier.pixels import Pixels
from inandout.hardware import Hardware, Precision


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


def compute_logits(model: DefectNet, images: Tensor, precision: Precision) -> Tensor:
    """Return logits (N,) of images (N, 3, H, W): the network computes in the precision, the last layer in fp32."""
    with Hardware(images.device, precision).autocast():
        features = model.features(images)
    return model.logits(features.float())


def to_tensor(pixels: Pixels, device: torch.device) -> Tensor:
    """Convert (N, H, W, 3) to a channels-last tensor (N, 3, H, W), on the CPU without a copy.

    The host does not wait until a GPU has received it.
    """
    images = torch.from_numpy(np.ascontiguousarray(pixels))
    images = images.pin_memory() if device.type == "cuda" else images
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2)
