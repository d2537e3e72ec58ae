"""Result of a classifier, and `scores.csv`: one row per validation and test image, with its logit."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

import mlflow
import numpy as np

from inandout.data.manifest import Sample, Split
from inandout.data.text import from_cell, to_cell
from inandout.evaluation.metrics import Floats, Scored
from inandout.stages.classify.part import Part
from inandout.tracking.runs import artifact_folder


class Result(NamedTuple):
    """Run id and metrics of a classifier."""

    run_id: str
    metrics: dict[str, float]


def scored_part(part: Part, logits: Floats) -> Scored:
    """Return the labels, logits (N,) and physical parts of a part."""
    return Scored(part.labels, logits, [sample.group for sample in part.samples])


def log_scores(samples: Sequence[Sample], logits: Floats) -> None:
    """Log `scores.csv` of `samples` and their logits (N,)."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image", "split", "label", "defect", "group", "logit"])
    for sample, score in zip(samples, logits, strict=True):
        name = "/".join(sample.image.parts[-3:])
        texts = [to_cell(text) for text in (name, sample.split, sample.defect, sample.group)]
        writer.writerow([*texts[:2], sample.label, *texts[2:], repr(float(score))])
    mlflow.log_text(text.getvalue(), "scores.csv")


def read_scores(run_id: str, split: Split = "test") -> Scored:
    """Read one split from the `scores.csv` of a run."""
    with artifact_folder(run_id, "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    labels = np.array([int(row["label"]) for row in rows], np.int64)
    groups, kinds = ([from_cell(row[name]) for row in rows] for name in ("group", "defect"))
    return Scored(labels, np.array([float(row["logit"]) for row in rows]), groups, kinds)
