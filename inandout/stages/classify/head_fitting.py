"""What is fitted to validation images after training: the combination of the heads, and the distances to good parts."""

from collections.abc import Sequence

import numpy as np
import torch

from inandout.classifier.backbone import DefectNet
from inandout.classifier.config import PATCHES
from inandout.classifier.distance_head import DistanceHead
from inandout.classifier.head_combination import fit_combination
from inandout.classifier.nearest import build_memory, fit_addition, patch_distances, worst
from inandout.classifier.training import Logits, predict
from inandout.data.manifest import Sample
from inandout.errors import InputError
from inandout.evaluation.metrics import ranking
from inandout.hardware import Precision
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.part import Part, load_part
from inandout.tracking.logging import log_values

_FEWEST = 2
"""Minimum number of good validation images for a standard deviation."""


def refuse_unfit(config: ClassifyConfig, real: Sequence[Sample]) -> None:
    """Raise an InputError if the distances of `config` have too few good validation images among `real`."""
    good = sum(sample.split == "val" and sample.label == 0 for sample in real)
    if config.backbone.distances and good < _FEWEST:
        raise InputError(
            f"distances = True: the validation part has {good} good images, and {_FEWEST} or more are needed to scale "
            "the distances; raise val_share, or give distances=false"
        )


def combine_heads(model: DefectNet, val: Part, step: int, precision: Precision) -> Logits:
    """Combine image and mask head on the validation part; log the weight of the map, and return the logits (N,)."""
    weight = fit_combination(model, val.pixels, val.labels, precision).weight
    return _log_val_ap(model, val, step, precision, {"map_weight": weight})


def add_distances(
    model: DefectNet, real: Sequence[Sample], val: Part, config: ClassifyConfig, precision: Precision
) -> Logits:
    """Add the distance to the good training parts to the score; return the logits (N,) of the validation part."""
    good = load_part([sample for sample in real if (sample.split, sample.label) == ("train", 0)], config.geometry)
    memory = build_memory(model, good.pixels, PATCHES, config.seed)
    unseen = val.pixels[np.flatnonzero(val.labels == 0)]
    distances = worst(patch_distances(model, memory, unseen))
    addition = fit_addition(predict(model, unseen, precision=precision), distances)
    model.distance_head = DistanceHead(memory).to(model.mean.device)
    model.distance_head.addition.copy_(torch.tensor(addition))
    return _log_val_ap(model, val, config.fit.epochs, precision, {"distance_scale": addition.scale})


def _log_val_ap(model: DefectNet, val: Part, step: int, precision: Precision, values: dict[str, float]) -> Logits:
    """Log `values`, and `val_ap` if it is defined; return the logits (N,) of `val`."""
    logits = predict(model, val.pixels, precision=precision)
    if 0 < val.labels.sum() < len(val.labels):
        values = values | {"val_ap": ranking(logits, val.labels)["ap"]}
    log_values(values, step)
    return logits
