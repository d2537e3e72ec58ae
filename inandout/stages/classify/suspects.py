"""The labels that `label-errors` suspects; importing it loads no model library."""

import csv
from pathlib import Path
from typing import NamedTuple

import mlflow
from scipy.special import expit

from inandout.data.manifest import Sample, read_manifest
from inandout.errors import InputError
from inandout.tracking.runs import artifact_folder, artifact_names

SUSPECTS = "labels.csv"
"""Artifact: one row per image, highest loss first."""


class Suspect(NamedTuple):
    """A labelled image and its out-of-fold prediction."""

    sample: Sample
    logit: float
    """Logit of a defect."""
    loss: float
    """Cross-entropy of the label, in nats; above ln 2 the prediction contradicts the label."""

    @property
    def chance(self) -> float:
        """Probability of a defect, 0..1."""
        return float(expit(self.logit))

    @property
    def contrary(self) -> bool:
        """Whether the prediction contradicts the label."""
        return (self.logit > 0) != (self.sample.label == 1)


def is_label_errors_run(run_id: str) -> bool:
    """Return whether a run has the artifact `SUSPECTS`."""
    try:
        return SUSPECTS in artifact_names(run_id)
    except mlflow.MlflowException:
        return False


def read_suspects(run_id: str) -> list[Suspect]:
    """Return the labelled images of a run of `label-errors`, highest loss first.

    Raises:
        InputError: an image file of the run is missing.
    """
    rows = {str(sample.image): sample for sample in read_manifest(artifact_folder(run_id, "manifest.csv"))}
    with artifact_folder(run_id, SUSPECTS).open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    missing = [row["image"] for row in table if row["image"] not in rows or not Path(row["image"]).exists()]
    if missing:
        raise InputError(f"{missing[0]}: image of run {run_id} is missing; restore it, or run label-errors again")
    return [Suspect(rows[row["image"]], float(row["logit"]), float(row["loss"])) for row in table]
