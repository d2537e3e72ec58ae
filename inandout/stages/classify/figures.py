"""Contact sheets and curves of a classifier: its training images and its worst mistakes."""

from collections.abc import Callable

import mlflow
import numpy as np

from inandout.classifier.training import Logits
from inandout.data.images import ImageArray
from inandout.data.manifest import Sample
from inandout.reporting.figures import contact_sheet, pr_curve
from inandout.stages.classify.part import Part

N_SHOWN = 8
"""Maximum number of images of each kind on a contact sheet."""


def log_training_mix(train: Part, seed: int) -> None:
    """Log `training_mix.png`: up to `N_SHOWN` random images of each origin and label."""
    kinds: dict[tuple[str, int], list[int]] = {}
    for i, sample in enumerate(train.samples):
        kinds.setdefault((sample.origin, sample.label), []).append(i)
    rng = np.random.default_rng(seed)
    indices = [int(i) for kind in sorted(kinds) for i in rng.permutation(kinds[kind])[:N_SHOWN]]
    captions = [_caption(train.samples[i]) for i in indices]
    mlflow.log_image(
        contact_sheet([train.pixels[i] for i in indices], captions, N_SHOWN), artifact_file="training_mix.png"
    )


def _caption(sample: Sample) -> str:
    return f"{sample.origin} {sample.defect or ('positive' if sample.label else 'negative')}"


def log_images(
    test: Part, logits: Logits, values: dict[str, float], show: Callable[[list[int]], list[ImageArray]]
) -> None:
    """Log the PR curve with its operating points, and the worst mistakes: lowest positives, then highest negatives.

    `show` returns the images (H, W, 3) of some indices.
    """
    if "ap" not in values:
        return
    names = {"honest threshold": "", "best F1 on test (oracle)": "oracle_"}
    points = {
        name: (values[f"{prefix}recall"], values[f"{prefix}precision"])
        for name, prefix in names.items()
        if f"{prefix}recall" in values
    }
    mlflow.log_figure(pr_curve(logits, test.labels, points), "pr_curve.png")
    order = np.argsort(logits)
    positives = [int(i) for i in order if test.labels[i] == 1][:N_SHOWN]
    negatives = [int(i) for i in order[::-1] if test.labels[i] == 0][:N_SHOWN]
    captions = [f"{logits[i]:+.1f} {_caption(test.samples[i])}" for i in positives + negatives]
    sheet = contact_sheet(show(positives + negatives), captions, N_SHOWN)
    mlflow.log_image(sheet, artifact_file="worst_mistakes.png")
