"""ONNX export of a trained classifier, verified against torch on real images."""

from pathlib import Path

from inandout.classifier.backbone import DefectNet
from inandout.classifier.onnx_file import write_onnx
from inandout.classifier.pixels import Pixels
from inandout.data.config import Geometry
from inandout.evaluation.operating_points import OperatingPoint

CHECKED = 20
"""Number of real images for the comparison with torch."""


def write_export(
    model: DefectNet, pixels: Pixels, path: Path, *, geometry: Geometry, point: OperatingPoint, run_id: str
) -> float:
    """Write an ONNX file with `write_onnx`; its metadata hold run, rule, threshold, and size and fit of the images.

    Args:
        model: in evaluation mode.
        pixels: (N, H, W, 3), real images for the comparison with torch.
        path: path of the ONNX file.
        geometry: size and fit of the images.
        point: rule and threshold.
        run_id: run that trained the model.

    Returns:
        The largest absolute difference of logits and heat maps between ONNX and torch.

    Raises:
        InputError: the difference exceeds 1e-4.
    """
    size = {name: str(value) for name, value in geometry.model_dump().items()}
    metadata = {"run": run_id, "rule": point.rule, "threshold": repr(point.threshold), **size}
    return write_onnx(model, point.threshold, pixels, path, metadata)
