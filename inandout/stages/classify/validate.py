"""Train a classifier and evaluate it on validation images only, as a search does."""

from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
from mlflow.entities import Run
from sklearn.metrics import average_precision_score

from inandout.data.manifest import Sample, fingerprint
from inandout.data.prepare import CheckedData
from inandout.errors import InputError
from inandout.evaluation.metrics import best_f1_threshold, operating_point
from inandout.fingerprints import Identity
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.part import load_part
from inandout.stages.classify.scores import log_scores
from inandout.stages.classify.train import (
    ignored_options,
    input_fingerprints,
    resolve,
    run_name,
    train_classifier,
)
from inandout.tracking.logging import log_values
from inandout.tracking.runs import run_stage
from inandout.tracking.store import connect


def validate(config: ClassifyConfig, validation_set: Sequence[Sample], data: CheckedData) -> Run:
    """Train as `classify` does and evaluate on `validation_set`, or reuse the finished run.

    Test images are not loaded, scored or logged.

    Args:
        config: options of the classifier.
        validation_set: validation images of both labels.
        data: the dataset.

    Raises:
        InputError: training diverged, or an input is invalid.
    """
    connect()
    config = resolve(config)
    real = without_test(data.take_shot(config.data, config.scenario, config.seed))
    inputs = {"data": fingerprint(real), "validation_set": fingerprint(validation_set)} | input_fingerprints(config)
    identity = Identity("validate", __name__, config, inputs, ignored_options(config, inputs))
    name = run_name(config).replace("classify", "validate", 1)
    return run_stage(
        identity, name, config.data.data, real, lambda work: _validate(config, data, validation_set, work)
    )  # fmt: skip


def without_test(samples: Sequence[Sample]) -> list[Sample]:
    """Return the rows of the training and validation parts."""
    return [sample for sample in samples if sample.split != "test"]


def _validate(config: ClassifyConfig, data: CheckedData, validation_set: Sequence[Sample], work: Path) -> None:
    real = without_test(data.take_shot(config.data, config.scenario, config.seed))
    val = load_part(list(validation_set), config.geometry)
    _, logits = train_classifier(config, data, real, val, work)
    if not np.isfinite(logits).all():
        raise InputError("some logits are NaN or infinite because training diverged; lower lr and start again")
    point = operating_point(logits, val.labels, best_f1_threshold(logits, val.labels), "val_")
    log_values(point | {"val_ap": float(average_precision_score(val.labels, logits))})
    mlflow.set_tag("inandout.notes", "validation part only; the threshold has the best F1 on the same images")
    log_scores(val.samples, logits)
