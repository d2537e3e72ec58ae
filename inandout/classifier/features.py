"""Features of the classifier's last hidden layer, and the inputs of its heads."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inandout.classifier.backbone import DefectNet
from inandout.classifier.pixels import Pixels, allocate
from inandout.hardware import Hardware, Precision

Result = TypeVar("Result")
HeadInputs = Callable[[Tensor], tuple[Tensor, ...]]


def features(model: DefectNet, pixels: Pixels, batch_size: int = 32) -> npt.NDArray[np.float32]:
    """Return the input of the last layer (N, C) for pixels (N, H, W, 3), computed in evaluation mode.

    C depends on the backbone, 2048 for a ResNet-50. The mode of the model is restored.
    """
    batches = evaluate_batches(model, model.features, pixels, batch_size)
    empty = torch.empty(0, model.last.in_features)
    return torch.cat([empty, *(batch.float().cpu() for batch in batches)]).numpy()


def head_inputs(
    model: DefectNet, pixels: Pixels, precision: Precision = "fp32", batch_size: int = 32
) -> list[npt.NDArray[np.float32]]:
    """Return `DefectNet.head_inputs` of pixels (N, H, W, 3), computed in evaluation mode.

    Large arrays are memory-mapped, see `allocate`.

    Raises:
        InputError: the temporary folder has too little free space.
    """
    arrays: list[npt.NDArray[np.float32]] = []
    for number, batch in enumerate(
        evaluate_batches(model, lambda images: compute_inputs(model.head_inputs, images, precision), pixels, batch_size)
    ):
        arrays = arrays or [allocate((len(pixels), *each.shape[1:]), np.float32) for each in batch]
        start = number * batch_size
        for array, each in zip(arrays, batch, strict=True):
            array[start : start + len(each)] = each.float().cpu().numpy()
    return arrays


@torch.no_grad()
def evaluate_batches(
    model: DefectNet, function: Callable[[Tensor], Result], pixels: Pixels, batch_size: int
) -> Iterator[Result]:
    """Yield the results of a function of images on batches of pixels (N, H, W, 3), with `model` in evaluation mode.

    The mode of the model is restored after the last batch.
    """
    training = model.training
    model.eval()
    for start in range(0, len(pixels), batch_size):
        yield function(to_tensor(pixels[start : start + batch_size], model.mean.device))
    model.train(training)


def compute_inputs(head_inputs: HeadInputs, images: Tensor, precision: Precision) -> list[Tensor]:
    """Return `DefectNet.head_inputs`, compiled or not, of images (N, 3, H, W) in fp32, computed in the precision."""
    with Hardware(images.device, precision).autocast():
        inputs = head_inputs(images)
    return [each.float() for each in inputs]


def to_tensor(pixels: Pixels, device: torch.device) -> Tensor:
    """Convert (N, H, W, 3) to a channels-last tensor (N, 3, H, W), on the CPU without a copy.

    The host does not wait until a GPU has received it.
    """
    images = torch.from_numpy(np.ascontiguousarray(pixels))
    images = images.pin_memory() if device.type == "cuda" else images
    return images.to(device, non_blocking=True).permute(0, 3, 1, 2)
