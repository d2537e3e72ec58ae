"""A trained classifier as an ONNX file that was compared with torch on real images."""

import tempfile
from pathlib import Path

from inandout.classifier.onnx_file import write_onnx
from inandout.evaluation.operating_points import OperatingPoint
from inandout.serving.classifier_run import ClassifierRun, read_classifier_run, real_images

CHECKED = 20
"""Real images that the file and torch must agree on."""


def check_export(classify_run_id: str, point: OperatingPoint) -> float:
    """The largest absolute difference of a logit between ONNX and torch, over 20 real images of the test part.

    Raises:
        InputError: it is above 1e-4, the run is none of `classify`, or its test images cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        return write_export(read_classifier_run(classify_run_id), point, Path(folder) / "classifier.onnx")


def write_export(trained: ClassifierRun, point: OperatingPoint, path: Path) -> float:
    """Write `path`, see `write_onnx`; its metadata tell run, rule, threshold, size and fit of the images."""
    size = {name: str(value) for name, value in trained.geometry.model_dump().items()}
    about = {"run": trained.run_id, "rule": point.rule, "threshold": repr(point.threshold), **size}
    return write_onnx(trained.load(), point.threshold, real_images(trained, CHECKED), path, about)
