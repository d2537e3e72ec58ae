"""Metrics of the maps of a classifier on test images with a mask, recall by size and kind, and a sheet of maps."""

import csv
import io
from collections.abc import Sequence

import mlflow
import numpy as np

from inandout.classifier.backbone import DefectNet
from inandout.classifier.heatmap import heat_maps, mask_maps, pointing
from inandout.classifier.training import Logits
from inandout.data.config import Geometry
from inandout.data.images import ImageArray
from inandout.data.text import to_cell
from inandout.evaluation.localisation import PixelCounts, recall_by_kind, recall_by_size
from inandout.evaluation.metrics import honest_threshold
from inandout.reporting.figures import contact_sheet, overlay
from inandout.stages.classify.part import Part, outlined
from inandout.tracking.logging import log_values

N_SHOWN = 8
"""Columns of the sheet of maps, and the maximum number of images of each label on it."""


def log_localisation(model: DefectNet, val: Part, test: Part, geometry: Geometry, max_fpr: float) -> None:
    """Log how well the maps of the classifier locate the defects of the test part.

    `pointing` and `pointing_chance` are measured for every classifier, see `heat_maps`. A mask head also gives
    `pixel_ap`, `aupro`, and `iou` at `map_threshold`, a logit chosen on the validation part: the best IoU if it has
    masks of defects, else the threshold that the highest pixel of at most `max_fpr` of its good images reaches.
    Nothing is logged without masks. The model is in evaluation mode.
    """
    masks = {int(i): test.mask(int(i), geometry) for i in np.flatnonzero(test.labels)}
    visible = {i: mask for i, mask in masks.items() if mask is not None and mask.any()}
    if visible:
        score = pointing(heat_maps(model, test.pixels[list(visible)]), list(visible.values()))
        log_values({"pointing": score.hits, "pointing_chance": score.chance, "pointing_energy": score.energy})
    if model.mask_head:
        _log_pixels(model, val, test, geometry, max_fpr)
        mlflow.log_image(_sheet(model, test, geometry), artifact_file="maps.png")


def _log_pixels(model: DefectNet, val: Part, test: Part, geometry: Geometry, max_fpr: float) -> None:
    counts, _ = _count(model, test, geometry)
    if not counts.defined:
        return
    log_values({"pixel_ap": counts.average_precision(), "aupro": counts.aupro()})
    chosen_on, highest = _count(model, val, geometry)
    good = highest[val.labels == 0]
    threshold = (
        chosen_on.best_iou_threshold()
        if chosen_on.defined
        else honest_threshold(good, np.zeros(len(good), np.int64), max_fpr)[0]
    )
    if threshold is not None:
        log_values({"map_threshold": threshold, "iou": counts.iou(threshold)})


def _count(model: DefectNet, part: Part, geometry: Geometry) -> tuple[PixelCounts, Logits]:
    """Return the counts of the pixels with a known mask, and the highest logit (N,) of each image."""
    counts, highest = PixelCounts(), np.zeros(len(part.samples))
    for i, scores in enumerate(mask_maps(model, part.pixels)):
        highest[i] = scores.max()
        mask = part.mask(i, geometry)
        if mask is not None:
            counts.add(scores, mask)
    return counts, highest


def log_recalls(part: Part, logits: Logits, threshold: float, geometry: Geometry) -> None:
    """Log the recall of the defects of a part by size and kind, as metrics and as `recall.csv`.

    An image is detected if its logit is at least `threshold`. Sizes need masks, kinds a column `defect`.
    """
    positives = [int(i) for i in np.flatnonzero(part.labels)]
    detected = logits[positives] >= threshold
    masks = [part.mask(i, geometry) for i in positives]
    areas = [0 if mask is None else int(mask.sum()) for mask in masks]
    recalls = {
        "size": recall_by_size(areas, detected),
        "kind": recall_by_kind([part.samples[i].defect for i in positives], detected),
    }
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["by", "class", "images", "recall"])
    for by, classes in recalls.items():
        writer.writerows([by, to_cell(name), count, repr(recall)] for name, (count, recall) in classes.items())
        log_values({f"recall_{by}_{_metric_name(name)}": recall for name, (_, recall) in classes.items()})
    mlflow.log_text(text.getvalue(), "recall.csv")


def _metric_name(kind: str) -> str:
    """Replace the characters that MLflow refuses in the name of a metric."""
    return "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in kind)


def with_maps(model: DefectNet, part: Part, indices: Sequence[int], geometry: Geometry) -> list[ImageArray]:
    """Return images (H, W, 3) with the outline of the defect, and with the map if the model has a mask head."""
    if not model.mask_head:
        return [outlined(part, i, geometry) for i in indices]
    heats = heat_maps(model, part.pixels[list(indices)])
    return [outlined(part, i, geometry, overlay(part.pixels[i], heat)) for i, heat in zip(indices, heats, strict=True)]


def _sheet(model: DefectNet, test: Part, geometry: Geometry) -> ImageArray:
    """Return a contact sheet of defects and good parts, evenly spaced in the test part, each with its map beside it."""
    found = [np.flatnonzero(test.labels == label) for label in (1, 0)]
    chosen = [int(i) for each in found for i in each[:: -(-len(each) // N_SHOWN) or 1]]
    maps = with_maps(model, test, chosen, geometry)
    images = [image for i, heat in zip(chosen, maps, strict=True) for image in (outlined(test, i, geometry), heat)]
    names = [test.samples[i].defect or ("defect" if test.labels[i] else "good") for i in chosen]
    return contact_sheet(images, [caption for name in names for caption in (name, "map")], N_SHOWN)
