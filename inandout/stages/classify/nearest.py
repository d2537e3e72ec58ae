"""Entry point `nearest`: a baseline that never sees a defect, scored as a classifier.

The score of an image is the distance of its worst patch to the patches of good training parts.
"""

from collections.abc import Sequence
from functools import partial

import mlflow
import numpy as np

from inandout.classifier.backbone import build_classifier
from inandout.classifier.config import BackboneConfig
from inandout.classifier.nearest import Distances, build_memory, patch_distances, worst
from inandout.data.config import ShotConfig
from inandout.data.manifest import Sample, fingerprint
from inandout.data.prepare import CheckedData, read_data
from inandout.evaluation.metrics import evaluate
from inandout.fingerprints import Identity
from inandout.hardware import Hardware, find_device
from inandout.reporting.figures import contact_sheet, overlay
from inandout.stages.classify.config import NearestConfig
from inandout.stages.classify.figures import N_SHOWN, log_images
from inandout.stages.classify.part import Part, load_part, outlined
from inandout.stages.classify.scores import Result, log_scores, scored_part
from inandout.stages.classify.trained_classifier import TEST_TAG
from inandout.tracking.logging import log_values
from inandout.tracking.runs import WEIGHTS_TAG, run_stage
from inandout.tracking.store import connect


def nearest(config: NearestConfig, data: CheckedData | None = None) -> Result:
    """Score the test part by its distance to good parts, or reuse the finished run.

    Args:
        config: options.
        data: the dataset; None = read it.

    Raises:
        InputError: the dataset or the weights are invalid.
    """
    connect()
    data = read_data(config.data.data) if data is None else data
    real = data.take_shot(config.data, ShotConfig(shot="zero"), config.seed)
    name = f"nearest {config.network.backbone} patches={config.patches} seed={config.seed:02d}"
    run = run_stage(_identity(config, real), name, config.data.data, real, lambda work: _measure(config, real))
    return Result(run.info.run_id, run.data.metrics)


def nearest_fingerprint(config: NearestConfig, data: CheckedData) -> str:
    """Return the fingerprint of the run of `nearest` without computing it."""
    return _identity(config, data.take_shot(config.data, ShotConfig(shot="zero"), config.seed)).fingerprint


def _identity(config: NearestConfig, real: Sequence[Sample]) -> Identity:
    inputs = {"data": fingerprint(real)} | config.network.inputs()
    return Identity("nearest", __name__, config, inputs, inputs.keys())


def _measure(config: NearestConfig, real: Sequence[Sample]) -> None:
    good, val, test = (
        load_part([sample for sample in real if sample.split == split], config.geometry)
        for split in ("train", "val", "test")
    )
    device = find_device(config.device)
    model = build_classifier(BackboneConfig(**config.network.model_dump()), config.seed).to(device)
    mlflow.log_params({"n_train_real_negatives": len(good.samples)})
    tags = {WEIGHTS_TAG: config.network.weights_identity(), TEST_TAG: fingerprint(test.samples)}
    mlflow.set_tags(Hardware(device).tags() | tags)
    memory = build_memory(model, good.pixels, config.patches, config.seed)
    distances = partial(patch_distances, model, memory)
    test_distances = distances(test.pixels)
    val_scores, test_scores = worst(distances(val.pixels)), worst(test_distances)
    evaluation = evaluate(scored_part(test, test_scores), scored_part(val, val_scores), config.val_fpr, config.seed)
    log_values(evaluation.values | {"patches_kept": float(len(memory))})
    notes = list(evaluation.notes)
    if config.network.weights == "none":
        notes.append("weights=none: distances in the features of a random network; give weights of ImageNet")
        print(notes[-1])
    mlflow.set_tag("inandout.notes", " | ".join(notes))
    log_scores([*val.samples, *test.samples], np.concatenate([val_scores, test_scores]))
    log_images(
        test, test_scores, evaluation.values, lambda indices: [outlined(test, i, config.geometry) for i in indices]
    )
    _log_maps(config, test, test_distances)


def _log_maps(config: NearestConfig, test: Part, distances: Distances) -> None:
    """Log `distance_maps.png`: defects and good parts with the highest scores, each above its map."""
    order = np.argsort(-worst(distances))
    shown = [int(i) for label in (1, 0) for i in [j for j in order if test.labels[j] == label][: N_SHOWN // 2]]
    low, high = float(distances.min()), float(distances.max())
    images = [outlined(test, i, config.geometry) for i in shown]
    maps = [overlay(test.pixels[i], (distances[i] - low) / max(high - low, 1e-9)) for i in shown]
    captions = [f"{distances[i].max():.2f} {'defect' if test.labels[i] else 'good'}" for i in shown]
    sheet = contact_sheet([*images, *maps], [*captions, *captions], len(shown))
    mlflow.log_image(sheet, artifact_file="distance_maps.png")
