"""Manifests after a review of labels: with corrected labels, and without doubtful labels."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow

from inandout.data.manifest import Review, Sample, write_manifest

CORRECTED, WITHOUT = "corrected.csv", "without.csv"
"""Artifacts of a label review. Rows contain their split, so that classifiers share the same test part."""


def relabelled(samples: Sequence[Sample], images: Sequence[str], said: Mapping[str, Review]) -> list[Sample]:
    """The rows, those whose label was called wrong with the other one; a mask and a kind go with the old label.

    `images` are the digests of `samples`, `said` is what reviewers say together.
    """
    return [
        sample.with_(label=1 - sample.label, mask=None, defect="") if said.get(image) == "reject" else sample
        for sample, image in zip(samples, images, strict=True)
    ]


def undoubted(samples: Sequence[Sample], images: Sequence[str], said: Mapping[str, Review]) -> list[Sample]:
    """The rows but for those whose label was called wrong or unsure."""
    return [
        sample
        for sample, image in zip(samples, images, strict=True)
        if said.get(image) not in ("reject", "unsure")
    ]  # fmt: skip


def log_relabelled(
    run_id: str, samples: Sequence[Sample], images: Sequence[str], said: Mapping[str, Review]
) -> None:  # fmt: skip
    """Log both manifests to a run, from any thread."""
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(relabelled(samples, images, said), Path(folder) / CORRECTED)
        write_manifest(undoubted(samples, images, said), Path(folder) / WITHOUT)
        mlflow.MlflowClient().log_artifacts(run_id, folder)
