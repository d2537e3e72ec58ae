"""Fit the combination of the heads and the distances to good parts on validation images."""

from collections.abc import Sequence

import torch

from inandout.classifier.backbone import DefectNet
from inandout.classifier.config import PATCHES
from inandout.classifier.distance_head import Addition, DistanceHead
from inandout.classifier.head_combination import fit_combination
from inandout.classifier.nearest import build_memory, fit_addition, patch_distances, worst
from inandout.classifier.training import Logits, predict
from inandout.data.manifest import Sample
from inandout.errors import InputError
from inandout.evaluation.combined_scores import FEWEST
from inandout.evaluation.metrics import ranking
from inandout.hardware import Precision
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.part import Part, load_part
from inandout.tracking.logging import log_values


def refuse_few_good_parts(config: ClassifyConfig, real: Sequence[Sample]) -> None:
    """Raise an InputError if the distances of `config` have too few good validation images among `real`."""
    good = sum(sample.split == "val" and sample.label == 0 for sample in real)
    if config.backbone.distances and good < FEWEST:
        raise InputError(
            f"distances = True: the validation part has {good} good images, and {FEWEST} or more are needed to scale "
            "the distances; raise val_share, or give distances=false"
        )


def fit_heads(
    model: DefectNet, real: Sequence[Sample], val: Part, config: ClassifyConfig, precision: Precision
) -> Logits:
    """Combine the heads and add the distances that `config` asks for; log how, and return the logits (N,) of `val`."""
    values = {}
    if model.mask_head:
        values["map_weight"] = fit_combination(model, val.pixels, val.labels, precision).weight
    if config.backbone.distances:
        addition = _add_distances(model, real, val, config)
        values |= {"distance_scale": addition.scale, "distance_offset": addition.offset}
    logits = predict(model, val.pixels, precision=precision)
    if 0 < val.labels.sum() < len(val.labels):
        values["val_ap"] = ranking(logits, val.labels)["ap"]
    log_values(values, config.fit.epochs)
    return logits


def _add_distances(model: DefectNet, real: Sequence[Sample], val: Part, config: ClassifyConfig) -> Addition:
    """Give the model the distances to the good training parts, scaled on the good validation images."""
    good = load_part([sample for sample in real if (sample.split, sample.label) == ("train", 0)], config.geometry)
    memory = build_memory(model, good.pixels, PATCHES, config.seed)
    unseen = val.labels == 0
    distances = worst(patch_distances(model, memory, val.pixels))
    addition = fit_addition(predict(model, val.pixels)[unseen], distances[unseen])
    model.distance_head = DistanceHead(memory).to(model.mean.device)
    model.distance_head.addition.copy_(torch.tensor(addition))
    return addition
