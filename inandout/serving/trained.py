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
from inandout.tracking import WEIGHTS, artifact_folder


class Trained(NamedTuple):
    """A finished classifier."""

    run_id: str
    weights: Path
    geometry: Geometry
    """How its pictures were prepared."""
    test: list[Sample]
    """Test part; the files may be gone since."""

    def load(self) -> DefectNet:
        """The model, on the CPU, in evaluation mode."""
        return load_classifier(self.weights)


def read_trained(run_id: str) -> Trained:
    """Everything of it.

    Raises:
        InputError: there is no such run, or it is not one of `classify`.
    """
    weights = artifact_folder(run_id, WEIGHTS)
    config = json.loads(artifact_folder(run_id, "config.json").read_text(encoding="utf-8"))
    samples = read_manifest(artifact_folder(run_id, "manifest.csv"))
    geometry = Geometry(**{name: config[name] for name in Geometry.model_fields})
    return Trained(run_id, weights, geometry, [sample for sample in samples if sample.split == "test"])


def real_pictures(trained: Trained, number: int) -> Pixels:
    """(`number`, H, W, 3) of the test part, spread over it and so over its labels; all there are where there are fewer.

    Raises:
        InputError: fewer than two, or one of them cannot be read.
    """
    chosen = np.unique(np.linspace(0, len(trained.test) - 1, min(number, len(trained.test))).astype(int))
    if len(chosen) < 2:
        raise InputError(
            f"run {trained.run_id} has {len(trained.test)} test pictures; the check of an export needs 2 or more"
        )
    return load_pixels([trained.test[int(i)].image for i in chosen], trained.geometry)
