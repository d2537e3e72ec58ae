"""Manifests after a review of labels: with corrected labels, and without doubtful labels."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow

from inandout.data.manifest import Review, Sample, write_manifest

CORRECTED, WITHOUT = "corrected.csv", "without.csv"
"""Artifacts of a label review. Rows contain their split, so that classifiers share the same test part."""


def correct_labels(samples: Sequence[Sample], images: Sequence[str], reviews: Mapping[str, Review]) -> list[Sample]:
    """Return the rows with rejected labels flipped; flipped rows lose mask and kind of defect.

    Args:
        samples: labelled rows.
        images: digests of the images of `samples`.
        reviews: digest to joint decision of the reviewers.
    """
    return [
        sample.with_(label=1 - sample.label, mask=None, defect="") if reviews.get(image) == "reject" else sample
        for sample, image in zip(samples, images, strict=True)
    ]


def drop_doubtful(samples: Sequence[Sample], images: Sequence[str], reviews: Mapping[str, Review]) -> list[Sample]:
    """Return the rows without those whose label was rejected or unsure; arguments as in `correct_labels`."""
    return [
        sample
        for sample, image in zip(samples, images, strict=True)
        if reviews.get(image) not in ("reject", "unsure")
    ]  # fmt: skip


def log_relabelled(
    run_id: str, samples: Sequence[Sample], images: Sequence[str], reviews: Mapping[str, Review]
) -> None:  # fmt: skip
    """Log both manifests to a run, from any thread."""
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(correct_labels(samples, images, reviews), Path(folder) / CORRECTED)
        write_manifest(drop_doubtful(samples, images, reviews), Path(folder) / WITHOUT)
        mlflow.MlflowClient().log_artifacts(run_id, folder)
