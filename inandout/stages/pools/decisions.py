"""Read review decisions from MLflow runs. Runs and pools are matched by the content of the images."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlflow

from inandout.data.manifest import Sample, digests
from inandout.errors import InputError
from inandout.review.decisions import Decision, merge_logs, parse
from inandout.review.session import identity_of
from inandout.review.summary import apply_decisions, certified_prompts, images_needed, joint_decisions
from inandout.tracking.runs import artifact_folder

POOL_TAG = "inandout.pool"
"""Run tag: identity of the reviewed images."""
DECISIONS = "decisions.jsonl"
"""Artifact of a review run: all decisions on the pool."""


def decisions_on(images: Sequence[str]) -> list[Decision]:
    """Return the decisions that runs hold on exactly these images (digests); empty without a finished review."""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`{POOL_TAG}` = '{identity_of(images)}'", max_results=1000)
    paths = [
        artifact_folder(run.info.run_id, DECISIONS)
        for run in runs
        if any(artifact.path == DECISIONS for artifact in client.list_artifacts(run.info.run_id))
    ]
    return merge_logs([parse(path.read_bytes(), path) for path in paths])


def review_of(samples: Sequence[Sample]) -> tuple[list[Sample], list[str], list[Decision]]:
    """The rows of a pool with what was decided on them, their digests, and the decisions."""
    images = digests([sample.image for sample in samples])
    decisions = decisions_on(images)
    return apply_decisions(samples, images, joint_decisions(decisions)), images, decisions


def kept(name: str, where: str, samples: Sequence[Sample], needed: int) -> list[Sample]:
    """The kept images of a reviewed pool.

    Args:
        name: of the option that names the pool.
        where: its value.
        samples: rows with their decisions.
        needed: how many must be left.

    Raises:
        InputError: they are fewer; it says how many are missing and what became of the others.
    """
    found = [sample for sample in samples if sample.review == "keep"]
    if len(found) < needed:
        counts = Counter(sample.review for sample in samples)
        missing = needed - len(found)
        raise InputError(
            f"{name} = {where}: {needed} images are needed and {len(found)} of {len(samples)} were kept in review, "
            f"so {missing} are missing ({counts['reject']} rejected, {counts['unsure']} unsure, "
            f"{counts['']} not decided); {_way_on(where, samples, missing)}"
        )
    return found


def _way_on(where: str, samples: Sequence[Sample], missing: int) -> str:
    """What to do about missing images: decide on the others, then draw more, or make another pool."""
    steps = []
    if any(sample.review == "" for sample in samples):
        steps.append(f"go on with `python -m inandout review --pool {where}`, and press Finish there")
    if certified_prompts(samples) and not Path(where).is_dir():
        n = images_needed(samples, missing)
        more = f"`python -m inandout extend-pool --pool {where} --n-aug {n}`"
        steps.append(f"draw {n} more of the certified prompts with {more}, and review those")
    else:
        steps.append("make a larger pool, of other prompts if these are no good, and review that")
    return "; or ".join(steps)
