"""`TrainedClassifier`: access to a finished run of `classify`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mlflow
import numpy as np
import torch
from mlflow.entities import Run

from inandout.classifier.backbone import DefectNet, load_classifier
from inandout.classifier.pixels import Pixels, load_pixels
from inandout.data.config import Geometry
from inandout.data.manifest import Sample, Split, fingerprint, read_manifest
from inandout.data.prepare import prepare
from inandout.data.splits import take_shot
from inandout.errors import InputError
from inandout.evaluation.metrics import Scored
from inandout.hardware import find_device
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import read_scores
from inandout.tracking.runs import STAGE, WEIGHTS, artifact_folder, artifact_names, find_run, read_config

TEST_TAG = "inandout.test"
"""Run tag: fingerprint of the test part. Classifiers with equal tags can be compared image by image."""


@dataclass(frozen=True)
class TrainedClassifier:
    """A finished classifier: configuration, weights, data and scores."""

    run: Run
    config: ClassifyConfig
    weights: Path
    """State dict of the classifier, a `.safetensors` file."""

    @classmethod
    def open(cls, run_id: str, option: str = "run") -> "TrainedClassifier":
        """Open the classifier of a run.

        Args:
            run_id: a finished run of `classify`, or a run of `mlflow run` that reused one.
            option: name of the option that gives `run_id`, for error messages.

        Raises:
            InputError: the run does not exist, is of another stage, is not finished, was logged by an incompatible
                version of the package, or lacks artifacts.
        """
        name = f"{option} = {run_id}"
        if not run_id:
            raise InputError(f"{option} is empty; give the run id of a classify run")
        try:
            run = find_run(run_id)
        except mlflow.MlflowException as error:
            raise InputError(f"{name}: no run has this id; copy the id of a classify run from the MLflow UI") from error
        if (stage := run.data.tags.get(STAGE)) != "classify":
            raise InputError(
                f"{name}: is a run of {stage or 'another program'}, not of classify; give the id of a classify run"
            )
        if run.info.status != "FINISHED":
            raise InputError(f"{name}: is {run.info.status}, not FINISHED; run the same classify again to resume it")
        missing = {"config.json", "manifest.csv", "scores.csv", WEIGHTS} - artifact_names(run_id)
        if missing:
            raise InputError(
                f"{name}: artifacts {', '.join(sorted(missing))} are missing in {run.info.artifact_uri}; restore "
                "them, or run classify again with fresh=true"
            )
        try:
            config = ClassifyConfig.from_flat(**read_config(run_id))
        except ValueError as error:
            raise InputError(
                f"{name}: was logged by an incompatible version of the package; run classify again"
            ) from error
        return cls(run, config, artifact_folder(run_id, WEIGHTS))

    @property
    def run_id(self) -> str:
        """Run id."""
        return self.run.info.run_id

    @property
    def geometry(self) -> Geometry:
        """Image size and fit."""
        return self.config.geometry

    @property
    def threshold(self) -> float | None:
        """The honest threshold, a logit; None if the validation part does not determine one."""
        return self.run.data.metrics.get("threshold")

    @property
    def data_fingerprint(self) -> str:
        """Fingerprint of the dataset after the shot."""
        inputs = self.run.inputs
        assert inputs is not None, "run_stage logs the dataset"
        return inputs.dataset_inputs[0].dataset.digest

    @property
    def test_fingerprint(self) -> str:
        """Fingerprint of the test part."""
        return self.run.data.tags[TEST_TAG]

    def load(self) -> DefectNet:
        """Load the model on the CPU, in evaluation mode."""
        return load_classifier(self.weights)

    def load_fastest(self) -> DefectNet:
        """Load the model on a GPU if available, in evaluation mode."""
        return self.load().to(find_device()).to(memory_format=torch.channels_last)

    def scores(self, split: Split = "test") -> Scored:
        """Read the logged labels and logits of a split."""
        return read_scores(self.run_id, split)

    @cached_property
    def samples(self) -> list[Sample]:
        """The real samples of the run after the shot. Their files may no longer exist."""
        return read_manifest(artifact_folder(self.run_id, "manifest.csv"))

    @property
    def test(self) -> list[Sample]:
        """The test part. Its files may no longer exist."""
        return [sample for sample in self.samples if sample.split == "test"]

    def test_files(self) -> list[Sample]:
        """Return the test part after checking that all its files exist.

        Raises:
            InputError: a file is missing, or there are fewer than two images.
        """
        samples = self.test
        files = [path for sample in samples for path in (sample.image, sample.mask) if path]
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} test files of run {self.run_id} are missing, for example {missing[0]}; restore them, "
                "because an export is checked with real images"
            )
        if len(samples) < 2:
            raise InputError(
                f"run {self.run_id} has {len(samples)} test images; the check of an export needs at least 2"
            )
        return samples

    def test_pixels(self, number: int) -> Pixels:
        """Load up to `number` images (N, H, W, 3), evenly spaced in the test part; raises as `test_files`."""
        samples = self.test_files()
        chosen = np.unique(np.linspace(0, len(samples) - 1, number).astype(int))
        return load_pixels([samples[int(i)].image for i in chosen], self.geometry)

    @cached_property
    def data(self) -> list[Sample]:
        """The dataset, read again and split as for the classifier, with the positives that its shot withheld.

        Raises:
            InputError: the dataset has changed since the training.
        """
        samples = prepare(self.config.data, self.config.seed)
        if fingerprint(self.take_known(samples)) != self.data_fingerprint:
            raise InputError(f"run {self.run_id}: its dataset has changed; run classify again and give the new run")
        return samples

    def rows(self, split: Split, label: int) -> list[Sample]:
        """Return the samples of `data` of one split and label."""
        return [sample for sample in self.data if (sample.split, sample.label) == (split, label)]

    def take_known(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return `samples` without the positives that the shot withheld."""
        return take_shot(samples, self.config.scenario, self.config.seed)
