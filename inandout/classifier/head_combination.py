"""Choice of how the image score combines the two heads, on validation images."""

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from inandout.classifier.backbone import DefectNet
from inandout.classifier.features import compute_inputs, evaluate_batches
from inandout.classifier.mask_head import Combination, map_scores
from inandout.classifier.pixels import Pixels
from inandout.classifier.training import Labels, Logits
from inandout.hardware import Precision

WEIGHTS = (0.5, 0.25, 0.75, 0.0, 1.0)
"""Weights of the map that validation chooses from; of equally good ones, the first."""


def fit_combination(model: DefectNet, pixels: Pixels, labels: Labels, precision: Precision = "fp32") -> Combination:
    """Set the combination of a model with a mask head from validation images (N, H, W, 3), and return it."""
    assert model.mask_head, "only a model with a mask head combines two"
    combination = choose_combination(*score_heads(model, pixels, precision), labels)
    model.mask_head.combination.copy_(torch.tensor(combination))
    return combination


def choose_combination(image: Logits, maps: Logits, labels: Labels) -> Combination:
    """Choose the combination of image logits (N,) and map scores (N,) of validation images.

    The map scores are scaled so that the validation negatives have the mean and standard deviation of their image
    logits. The weight is the one of `WEIGHTS` with the highest average precision; .5 if the validation part has no
    positives, as with zero and few shots. Without two different negatives, the scale is 1 and the offset 0.
    """
    negatives = labels == 0
    scale, offset = 1.0, 0.0
    if negatives.any() and np.ptp(image[negatives]) > 0 and np.ptp(maps[negatives]) > 0:
        scale = float(image[negatives].std() / maps[negatives].std())
        offset = float(image[negatives].mean() - scale * maps[negatives].mean())
    if not negatives.any() or negatives.all():
        return Combination(scale=scale, offset=offset)
    scaled = offset + scale * maps
    return max(
        (Combination(weight, scale, offset) for weight in WEIGHTS),
        key=lambda each: average_precision_score(labels, (1 - each.weight) * image + each.weight * scaled),
    )


def score_heads(
    model: DefectNet, pixels: Pixels, precision: Precision = "fp32", batch_size: int = 32
) -> tuple[Logits, Logits]:
    """Return the image logits (N,) and the map scores (N,) of pixels (N, H, W, 3)."""

    def scores(images: Tensor) -> Tensor:
        prediction = model.heads(*compute_inputs(model.head_inputs, images, precision))
        assert prediction.cells is not None, "the model has no mask head"
        return torch.stack([prediction.logit, map_scores(prediction.cells)])

    batches = [batch.double().cpu().numpy() for batch in evaluate_batches(model, scores, pixels, batch_size)]
    image, maps = np.concatenate([np.empty((2, 0)), *batches], axis=1)
    return image, maps
