"""Export of the classifier to ONNX, with normalisation, threshold and a dynamic batch size.

The resize is not included, because no ONNX operator equals Pillow's antialiased filter and other filters change the
scores. Crop and resize images with `fit_image` or Pillow first.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from inandout.classifier.backbone import DefectNet
from inandout.classifier.heatmap import HeatMaps, heat_maps
from inandout.classifier.mask_head import enlarge
from inandout.classifier.pixels import Pixels
from inandout.classifier.training import Logits, predict
from inandout.errors import InputError
from inandout.files import replacing

TOLERANCE = 1e-4
"""Maximum absolute difference of logits and heat maps between ONNX Runtime and PyTorch."""
OUTPUTS = ("logit", "score", "decision")
HEAT_MAP = "heatmap"
"""Additional output of a classifier with a mask head."""


class Deciding(nn.Module):
    """Classifier with a threshold: uint8 RGB images (N, 3, H, W) to logits, sigmoid scores and decisions, (N,) each.

    With a mask head, the fourth output is the heat map (N, H, W), 0..1.
    """

    threshold: Tensor

    def __init__(self, model: DefectNet, threshold: float) -> None:
        """`threshold` is a defect logit; logits at or above it are defects."""
        super().__init__()
        self.model = model
        self.register_buffer("threshold", torch.tensor(threshold, dtype=torch.float64))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return logits, scores and decisions, (N,) each, and heat maps (N, H, W) of a mask head."""
        inputs = self.model.head_inputs(images)
        logit = self.model.combined(*inputs)
        decision = logit.double() >= self.threshold  # float32 could round the threshold to the logit
        cells = self.model.heads(*inputs).cells
        maps = () if cells is None else (enlarge(cells, int(images.shape[2]), int(images.shape[3])).sigmoid(),)
        return logit, torch.sigmoid(logit), decision, *maps


def write_onnx(model: DefectNet, threshold: float, pixels: Pixels, path: Path, about: Mapping[str, str]) -> float:
    """Export the model and verify it; the metadata of the file are `about` and `max_difference`.

    Args:
        model: on the CPU, in evaluation mode.
        threshold: a defect logit.
        pixels: (N, H, W, 3) real images for the verification, N >= 2; the exported model accepts only this image size.
        path: written only if the verification succeeds.
        about: additional metadata.

    Returns:
        The maximum absolute difference of logits and heat maps between ONNX Runtime and PyTorch.

    Raises:
        InputError: the difference is above `TOLERANCE` or not finite.
    """
    example = torch.from_numpy(np.ascontiguousarray(pixels[:2].transpose(0, 3, 1, 2)))
    with replacing(path) as temporary:
        program = torch.onnx.export(
            Deciding(model, threshold).eval(), (example,), dynamo=True, verbose=False, input_names=["images"],
            output_names=[*OUTPUTS, HEAT_MAP] if model.mask_head else list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
        )  # fmt: skip
        assert program is not None
        program.save(temporary)
        session = open_onnx(temporary)
        difference = largest_difference(predict(model, pixels), run_onnx(session, pixels)[0])
        if model.mask_head:
            maps = largest_difference(heat_maps(model, pixels), run_onnx_maps(session, pixels), "value of a heat map")
            difference = max(difference, maps)
        program.model.metadata_props.update({**about, "max_difference": repr(difference)})
        program.save(temporary)
    return difference


def open_onnx(path: Path) -> onnxruntime.InferenceSession:
    """Open a CPU session with PyTorch's number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_onnx(session: onnxruntime.InferenceSession, pixels: Pixels) -> tuple[Logits, Logits, np.ndarray]:
    """Return logits, scores and decisions, (N,) each, for pixels (N, H, W, 3)."""
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    logit, score, decision = session.run(list(OUTPUTS), {"images": images})
    return logit.astype(np.float64), score.astype(np.float64), decision


def run_onnx_maps(session: onnxruntime.InferenceSession, pixels: Pixels) -> HeatMaps:
    """Return heat maps (N, H, W) for pixels (N, H, W, 3) from the file of a classifier with a mask head."""
    (maps,) = session.run([HEAT_MAP], {"images": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))})
    return maps


def largest_difference(expected: np.ndarray, actual: np.ndarray, what: str = "logit") -> float:
    """Return the maximum absolute difference of two arrays of equal shape; `what` names a value in the error.

    Raises:
        InputError: the difference is above `TOLERANCE` or not finite.
    """
    difference = float(np.abs(expected - actual).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"the exported model differs from the trained one by {difference:.3g} in a {what}, more than "
            f"{TOLERANCE:g}, so no file was written; try another version of torch or onnxruntime"
        )
    return difference
