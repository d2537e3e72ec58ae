"""The classifier as an ONNX file: normalisation and threshold inside, any number of images.

What cannot be inside is the resize: Pillow's antialiased filter has no equal among ONNX's operators, and another filter
gives other scores. Cut and resize with `fit_image`, or with Pillow itself, before.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from inandout.classifier.pixels import Pixels
from inandout.classifier.resnet import DefectNet
from inandout.classifier.training import Logits, predict
from inandout.errors import InputError

TOLERANCE = 1e-4
"""Largest difference of a logit between the file and torch."""
OUTPUTS = ("logit", "score", "decision")


class Deciding(nn.Module):
    """uint8 RGB images (N, 3, H, W) to logits, their sigmoids and decisions, (N,) each."""

    threshold: Tensor

    def __init__(self, model: DefectNet, threshold: float) -> None:
        """`threshold`: a defect logit; what reaches it is a defect."""
        super().__init__()
        self.model = model
        self.register_buffer("threshold", torch.tensor(threshold, dtype=torch.float64))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        logit = self.model(images)
        decision = logit.double() >= self.threshold  # in float32 a threshold just above a score would fall on it
        return logit, torch.sigmoid(logit), decision


def write_onnx(model: DefectNet, threshold: float, pixels: Pixels, path: Path, about: Mapping[str, str]) -> float:
    """Write the file, if it says what torch says; its metadata have `about` and `max_difference`.

    Args:
        model: on the CPU, in evaluation mode.
        threshold: a defect logit.
        pixels: (N, H, W, 3) real images to check with, two or more; the file takes images of this size alone.
        path: where no file is left if the check fails.
        about: what else is to be known of the file.

    Returns:
        The largest absolute difference of a logit.

    Raises:
        InputError: it is above `TOLERANCE`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    example = torch.from_numpy(np.ascontiguousarray(pixels[:2].transpose(0, 3, 1, 2)))
    try:
        program = torch.onnx.export(
            Deciding(model, threshold).eval(), (example,), dynamo=True, verbose=False, input_names=["images"],
            output_names=list(OUTPUTS), dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
        )  # fmt: skip
        assert program is not None
        program.save(temporary)
        difference = largest_difference(predict(model, pixels), run_onnx(open_onnx(temporary), pixels)[0])
        program.model.metadata_props.update({**about, "max_difference": repr(difference)})
        program.save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return difference


def open_onnx(path: Path) -> onnxruntime.InferenceSession:
    """A session on the CPU, with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_onnx(session: onnxruntime.InferenceSession, pixels: Pixels) -> tuple[Logits, Logits, np.ndarray]:
    """Logits, scores and decisions, (N,) each, of pixels (N, H, W, 3)."""
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    logit, score, decision = session.run(list(OUTPUTS), {"images": images})
    return logit.astype(np.float64), score.astype(np.float64), decision


def largest_difference(ours: Logits, theirs: Logits) -> float:
    """The largest absolute difference of logits (N,).

    Raises:
        InputError: it is above `TOLERANCE`, or not a number.
    """
    difference = float(np.abs(ours - theirs).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"the exported model differs from the trained one by {difference:.3g} in a logit, more than {TOLERANCE:g}; "
            "nothing was written; another version of torch or onnxruntime may do better"
        )
    return difference
