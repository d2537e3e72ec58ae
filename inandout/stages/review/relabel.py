"""Manifests after a review of labels: with the wrong ones corrected, and without those that are in doubt."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow

from inandout.data.manifest import Review, Sample, write_manifest

CORRECTED, WITHOUT = "corrected.csv", "without.csv"
"""Artifacts of a review of labels; every row has its split, so that all are measured on the same test part."""


def relabelled(samples: Sequence[Sample], pictures: Sequence[str], said: Mapping[str, Review]) -> list[Sample]:
    """The rows, those whose label was called wrong with the other one; a mask and a kind go with the old label.

    `pictures` are the digests of `samples`, `said` is what reviewers say together.
    """
    return [
        sample.with_(label=1 - sample.label, mask=None, defect="") if said.get(picture) == "reject" else sample
        for sample, picture in zip(samples, pictures, strict=True)
    ]


def undoubted(samples: Sequence[Sample], pictures: Sequence[str], said: Mapping[str, Review]) -> list[Sample]:
    """The rows but for those whose label was called wrong or unsure."""
    return [
        sample
        for sample, picture in zip(samples, pictures, strict=True)
        if said.get(picture) not in ("reject", "unsure")
    ]  # fmt: skip


def log_relabelled(
    run_id: str, samples: Sequence[Sample], pictures: Sequence[str], said: Mapping[str, Review]
) -> None:  # fmt: skip
    """Both manifests as artifacts of a run; from any thread."""
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(relabelled(samples, pictures, said), Path(folder) / CORRECTED)
        write_manifest(undoubted(samples, pictures, said), Path(folder) / WITHOUT)
        mlflow.MlflowClient().log_artifacts(run_id, folder)
