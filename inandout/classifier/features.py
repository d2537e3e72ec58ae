"""Features of the classifier's last hidden layer."""

import numpy as np
import numpy.typing as npt

from inandout.classifier.pixels import Pixels
from inandout.classifier.resnet import DefectNet
from inandout.classifier.training import predict

WIDTH = 2048
"""Number of features per image."""


def features(model: DefectNet, pixels: Pixels, batch_size: int = 32) -> npt.NDArray[np.float32]:
    """Return the input of the last layer (N, 2048) for pixels (N, H, W, 3), computed in evaluation mode.

    The mode of the model is restored.
    """
    batches = [np.empty((0, WIDTH), np.float32)]
    hook = model.resnet.fc.register_forward_pre_hook(
        lambda layer, inputs: batches.append(inputs[0].float().cpu().numpy())
    )
    try:
        predict(model, pixels, batch_size)
    finally:
        hook.remove()
    return np.concatenate(batches)
