"""What serving and export need of a `classify` run."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inandout.classifier.pixels import Pixels, load_pixels
from inandout.classifier.resnet import DefectNet, load_classifier
from inandout.data.geometry import Geometry
from inandout.data.manifest import Sample, read_manifest
from inandout.errors import InputError
from inandout.tracking.runs import WEIGHTS, artifact_folder


class ClassifierRun(NamedTuple):
    """A finished classifier."""

    run_id: str
    data: str
    """Name of the data set it was trained on."""
    weights: Path
    geometry: Geometry
    """How its images were prepared."""
    test: list[Sample]
    """Test part; the files may be gone since."""

    def load(self) -> DefectNet:
        """The model, on the CPU, in evaluation mode."""
        return load_classifier(self.weights)


def read_classifier_run(run_id: str) -> ClassifierRun:
    """Everything of it.

    Raises:
        InputError: there is no such run, or it is not one of `classify`.
    """
    weights = artifact_folder(run_id, WEIGHTS)
    config = json.loads(artifact_folder(run_id, "config.json").read_text(encoding="utf-8"))
    samples = read_manifest(artifact_folder(run_id, "manifest.csv"))
    geometry = Geometry(**{name: config[name] for name in Geometry.model_fields})
    test = [sample for sample in samples if sample.split == "test"]
    return ClassifierRun(run_id, config["data"], weights, geometry, test)


def require_test_files(trained: ClassifierRun) -> list[Sample]:
    """The test part, all of whose files are on the disk.

    Raises:
        InputError: one of them is not, or there are fewer than two images.
    """
    files = [path for sample in trained.test for path in (sample.image, sample.mask) if path]
    gone = [path for path in files if not path.is_file()]
    if gone:
        raise InputError(
            f"{len(gone)} files of the test part of run {trained.run_id} are gone, {gone[0]} for example; an export is "
            "checked with real images: put them back where they were"
        )
    if len(trained.test) < 2:
        raise InputError(
            f"run {trained.run_id} has {len(trained.test)} test images; checking an export needs 2 or more"
        )
    return trained.test


def real_images(trained: ClassifierRun, number: int) -> Pixels:
    """Up to `number` images (N, H, W, 3), spread over the test part and its labels; raises as `require_test_files`."""
    samples = require_test_files(trained)
    chosen = np.unique(np.linspace(0, len(samples) - 1, number).astype(int))
    return load_pixels([samples[int(i)].image for i in chosen], trained.geometry)
