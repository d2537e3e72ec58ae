"""Entry point `review`: a local web page to review the images of a pool, or labels of real images."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import mlflow
from fastapi import FastAPI
from mlflow.entities import Metric, RunTag

from inandout.data.manifest import Sample, digests, read_manifest
from inandout.fingerprints import Identity
from inandout.review.app import build_app
from inandout.review.decisions import Decision, DecisionLog
from inandout.review.server import new_token, serve
from inandout.review.session import ReviewSession, build_label_session, build_session
from inandout.review.summary import joint_decisions
from inandout.review.updates import summarise
from inandout.stages.classify.suspects import is_label_errors_run, read_suspects
from inandout.stages.pools.decisions import DECISIONS, POOL_TAG, decisions_on
from inandout.stages.pools.drawing_config import DRAWING_INPUTS
from inandout.stages.pools.pool import pool_folder, read_pool
from inandout.stages.review.base_preview import open_base_preview
from inandout.stages.review.config import ReviewConfig
from inandout.stages.review.relabel import CORRECTED, WITHOUT, log_relabelled
from inandout.tracking.runs import artifact_folder, open_run, read_config
from inandout.tracking.store import connect, state_folder


class PoolWithDataset(NamedTuple):
    """Folder of a pool and its dataset."""

    folder: Path
    real: list[Sample]
    """The dataset of the pool; empty if unknown."""
    fit: Literal["crop", "stretch"]


def review(config: ReviewConfig) -> None:
    """Serve the review page until Ctrl-C. Decisions are saved immediately and logged to an MLflow run at the end."""
    connect()
    if config.pool:
        _run_review(config)
    else:
        _run_prompt_lab(config)


def _run_review(config: ReviewConfig) -> None:
    session, close = _build_session(config.pool)
    log = DecisionLog(_folder_of(session) / DECISIONS)
    log.add(decisions_on(session.ids))
    identity = Identity("review", __name__, config, {"pool": session.identity}, ignored=["pool"])
    with open_run("review", config.flat(), identity.fingerprint, f"review {Path(config.pool).name}") as run:

        def finish() -> str:
            decisions = log.read()
            return close(run.info.run_id, keep_decisions(run.info.run_id, session, decisions), decisions)

        mlflow.set_tag(POOL_TAG, session.identity)
        _serve(config, build_app(session, log, finish), finish)


Close = Callable[[str, dict[str, Any], Sequence[Decision]], str]
"""End a review, given run id, summary and decisions; return a sentence about its results."""


def _build_session(where: str) -> tuple[ReviewSession, Close]:
    """Return a session of pool images, or of images with suspicious labels, and the function that ends it."""
    if not Path(where).is_dir() and is_label_errors_run(where):
        data = read_manifest(artifact_folder(where, "manifest.csv"))
        return build_suspect_session(where), partial(_close_labels, data)
    opened = _open_pool(where)
    pool = read_pool(opened.folder)
    session = build_session(f"pool {Path(where).name}", opened.folder, pool.samples, opened.real, opened.fit)
    if not Path(where).is_dir():
        preview = open_base_preview(where, session.samples, _folder_of(session) / "alpha-0")
        session = replace(session, base_preview=preview)
    return session, _close_pool


def build_suspect_session(run_id: str) -> ReviewSession:
    """Return a session of the images of a run of `label-errors`, highest loss first."""
    suspects = read_suspects(run_id)
    return build_label_session(
        f"labels {run_id}", [suspect.sample for suspect in suspects], [suspect.chance for suspect in suspects]
    )  # fmt: skip


def _folder_of(session: ReviewSession) -> Path:
    return state_folder() / "review" / session.identity


def _run_prompt_lab(config: ReviewConfig) -> None:
    from inandout.stages.review.prompt_lab import open_prompt_lab, save_prompt_lab  # diffusers takes seconds to import

    config = config.resolved()
    opened = open_prompt_lab(config)
    identity = Identity("review", __name__, config, opened.inputs, ignored=DRAWING_INPUTS)
    with open_run("review", config.flat(), identity.fingerprint, "prompt lab") as run:

        def finish() -> str:
            return save_prompt_lab(run.info.run_id, opened.lab_page.lab)

        log = DecisionLog(opened.lab_page.lab.folder / DECISIONS)  # stays empty: the prompt lab has no decisions
        _serve(config, build_app(opened.session, log, finish, opened.lab_page), finish)


def _serve(config: ReviewConfig, app: FastAPI, finish: Callable[[], str]) -> None:
    try:
        serve(app, config.host, config.port, new_token(config.host), _print_address)
    finally:
        print(finish(), file=sys.stderr)


def _open_pool(where: str) -> PoolWithDataset:
    """Return the pool of a run with the dataset of that run, or the pool in a folder without a dataset.

    Raises:
        InputError: the pool does not exist.
    """
    folder = pool_folder(where)
    if Path(where).is_dir():
        return PoolWithDataset(folder, [], "crop")
    config = read_config(where)
    return PoolWithDataset(folder, _existing_dataset(artifact_folder(where, "manifest.csv")), config["fit"])


def _existing_dataset(manifest: Path) -> list[Sample]:
    """Return the dataset of a run; empty if an image file is missing."""
    samples = read_manifest(manifest)
    if all(sample.image.exists() for sample in samples):
        return samples
    print(
        "remark: image files of the dataset are missing, so real images and flags that compare with them are not "
        "available",
        file=sys.stderr,
    )
    return []


def _print_address(address: str) -> None:
    print(f"review: open {address} in a browser; press Ctrl-C here to finish", flush=True)


def keep_decisions(run_id: str, session: ReviewSession, decisions: Sequence[Decision]) -> dict[str, Any]:
    """Log decisions and their summary to the run, replacing earlier ones, from any thread; return the summary."""
    client = mlflow.MlflowClient()
    summary = summarise(session.samples, session.ids, decisions)
    text = "".join(decision.model_dump_json(ensure_ascii=True) + "\n" for decision in decisions)
    client.log_text(run_id, text, DECISIONS)
    client.log_text(run_id, json.dumps(summary, indent=2), "summary.json")
    values = {decision: float(count) for decision, count in summary["together"].items()}
    values |= {"images": float(summary["images"]), "reviewers": float(len(summary["reviewers"]))}
    kappas = [agreement["kappa"] for agreement in summary["agreements"] if agreement["kappa"] is not None]
    values |= {"lowest_kappa": min(kappas)} if kappas else {}
    now = int(time.time() * 1000)
    client.log_batch(
        run_id, [Metric(f"review_{name}", value, now, 0) for name, value in values.items()],
        tags=[RunTag("inandout.reviewers", ", ".join(summary["reviewers"])[:500])],
    )  # fmt: skip
    return summary


def _close_pool(run_id: str, summary: dict[str, Any], _: Sequence[Decision]) -> str:
    counts = summary["together"]
    return (
        f"{counts['keep']} kept, {counts['reject']} rejected, {counts['unsure']} unsure of {summary['images']}, in "
        f"run {run_id}. To train on kept images only, add reviewed=true to classify."
    )


def _close_labels(
    data: Sequence[Sample], run_id: str, summary: dict[str, Any], decisions: Sequence[Decision]
) -> str:  # fmt: skip
    log_relabelled(run_id, data, digests([sample.image for sample in data]), joint_decisions(decisions))
    counts = summary["together"]
    return (
        f"{counts['keep']} labels right, {counts['reject']} wrong, {counts['unsure']} unsure of {summary['images']}, "
        f"in run {run_id}. To train with wrong labels corrected: data={artifact_folder(run_id, CORRECTED)}; without "
        f"wrong and unsure labels: data={artifact_folder(run_id, WITHOUT)}"
    )
