"""A finished classifier that other stages look through: its options, the data it knows, its net."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from inandout.classifier.resnet import DefectNet, load_classifier
from inandout.data.manifest import Sample, fingerprint
from inandout.data.prepare import prepare
from inandout.data.splits import take_shot
from inandout.errors import InputError
from inandout.mixing import mix
from inandout.stages.classify.config import ClassifyConfig
from inandout.tracking.runs import WEIGHTS, artifact_folder, find_run


class TrainedClassifier(NamedTuple):
    """A classifier and what it was trained with."""

    run_id: str
    config: ClassifyConfig
    real: list[Sample]
    """The whole data set, parted as for the classifier, with the positives that its shot kept from it."""
    weights: Path

    def net(self) -> DefectNet:
        """The classifier, in evaluation mode, where it is fastest."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return load_classifier(self.weights).to(device).to(memory_format=torch.channels_last)

    def rows(self, split: str, label: int) -> list[Sample]:
        """Some of the real images."""
        return [sample for sample in self.real if (sample.split, sample.label) == (split, label)]

    def known(self) -> list[Sample]:
        """The real images without those that its shot kept from it."""
        return take_shot(self.real, self.config.scenario.shot, self.config.scenario.n_shot, self.config.seed)


def open_trained_classifier(option: str, run_id: str) -> TrainedClassifier:
    """The classifier of a run of `classify`, whose data set must still be the one that it knew.

    Args:
        option: that names the run; for messages.
        run_id: its value.

    Raises:
        InputError: there is no such run, it is not one of `classify`, or its data have changed.
    """
    if not run_id:
        raise InputError(f"{option} is empty; give the run id of a classify, whose ResNet-50 is to look at images")
    values = json.loads(artifact_folder(run_id, "config.json").read_text(encoding="utf-8"))
    try:
        config = ClassifyConfig.from_flat(**values)
    except ValueError as error:
        raise InputError(f"{option} = {run_id}: is not a run of classify; give the id of one") from error
    classifier = TrainedClassifier(run_id, config, prepare(config.data, config.seed), artifact_folder(run_id, WEIGHTS))
    _refuse_other_data(option, run_id, classifier.known())
    return classifier


def _refuse_other_data(option: str, run_id: str, samples: Sequence[Sample]) -> None:
    """Training images are special to a classifier; so the split must still be the one that it knew."""
    inputs = find_run(run_id).inputs
    if fingerprint(samples) not in [entry.dataset.digest for entry in (inputs.dataset_inputs if inputs else [])]:
        raise InputError(f"{option} = {run_id}: its data set has changed since; train it again and give that run")


def refuse_unfit(real: Sequence[Sample], pool: Sequence[Sample]) -> None:
    """What a training mix refuses: images of or from other parts of the data than the training part, for example."""
    if pool[0].origin == "memseg":
        mix(real, pool, [], len(pool), 0.0)
    else:
        mix(real, [], pool, len(pool), 1.0)
