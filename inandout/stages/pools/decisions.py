"""Read review decisions from MLflow runs. Runs and pools are matched by the content of the images."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlflow

from inandout.data.manifest import Origin, Sample, digests
from inandout.errors import InputError
from inandout.review.decisions import Decision, merge_logs, parse
from inandout.review.session import identity_of
from inandout.review.summary import apply_decisions, certified_prompts, images_needed, joint_decisions
from inandout.stages.pools.drawing_config import DRAWN_WITH
from inandout.tracking.runs import STAGE, artifact_folder, artifact_names, find_run

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


def load_review(samples: Sequence[Sample]) -> tuple[list[Sample], list[str], list[Decision]]:
    """Return the rows with their review results, the digests of the images, and the decisions."""
    images = digests([sample.image for sample in samples])
    decisions = decisions_on(images)
    return apply_decisions(samples, images, joint_decisions(decisions)), images, decisions


def kept_rows(name: str, where: str, samples: Sequence[Sample], needed: int) -> list[Sample]:
    """Return the rows of a reviewed pool that reviewers kept.

    Args:
        name: name of the option that gives the pool, for error messages.
        where: value of that option, a folder or run id.
        samples: rows with review results.
        needed: minimum number of kept rows.

    Raises:
        InputError: fewer than `needed` rows were kept.
    """
    kept = [sample for sample in samples if sample.review == "keep"]
    if len(kept) < needed:
        counts = Counter(sample.review for sample in samples)
        missing = needed - len(kept)
        raise InputError(
            f"{name} = {where}: {needed} images are needed, but review kept {len(kept)} of {len(samples)}, "
            f"so {missing} are missing ({counts['reject']} rejected, {counts['unsure']} unsure, "
            f"{counts['']} undecided); {_next_steps(where, samples, missing)}"
        )
    return kept


def _next_steps(where: str, samples: Sequence[Sample], missing: int) -> str:
    """Return advice on missing images: review undecided ones, extend the pool, or generate another pool."""
    steps = []
    if any(sample.review == "" for sample in samples):
        steps.append(f"continue with `python -m inandout review --pool {where}` and press Finish")
    if certified_prompts(samples) and _can_be_extended(where, samples[0].origin):
        n = images_needed(samples, missing)
        more = f"`python -m inandout extend-pool --pool {where} --n-aug {n}`"
        steps.append(f"draw {n} more images of the certified prompts with {more} and review them")
    else:
        steps.append("generate a larger pool, with better prompts if necessary, and review it")
    return "; or ".join(steps)


def _can_be_extended(where: str, origin: Origin) -> bool:
    """Return whether `extend-pool` accepts a pool: not a folder, an inpainted pool or a filtered MemSeg pool."""
    if Path(where).is_dir():
        return False
    if origin == "memseg":
        return find_run(where).data.tags.get(STAGE) in ("augment", "topup")
    return origin == "ddpm" and DRAWN_WITH in artifact_names(where)
