"""A trained classifier as an ONNX file that was compared with torch on real images."""

from pathlib import Path

from inandout.classifier.onnx_file import write_onnx
from inandout.classifier.pixels import Pixels
from inandout.classifier.resnet import DefectNet
from inandout.data.geometry import Geometry
from inandout.evaluation.operating_points import OperatingPoint

CHECKED = 20
"""Real images that the file and torch must agree on."""


def write_export(
    model: DefectNet, pixels: Pixels, path: Path, *, geometry: Geometry, point: OperatingPoint, run_id: str
) -> float:
    """Write `path`, see `write_onnx`; its metadata holds the run, rule, threshold, size and fit of the images.

    Args:
        model: in evaluation mode.
        pixels: (N, H, W, 3) of real images to compare on.
        path: of the file.
        geometry: how images were fitted.
        point: rule and threshold.
        run_id: run that trained the model.

    Returns:
        The largest absolute difference of a logit between ONNX and torch.

    Raises:
        InputError: the difference is above 1e-4.
    """
    size = {name: str(value) for name, value in geometry.model_dump().items()}
    about = {"run": run_id, "rule": point.rule, "threshold": repr(point.threshold), **size}
    return write_onnx(model, point.threshold, pixels, path, about)
