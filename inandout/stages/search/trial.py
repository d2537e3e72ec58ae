"""One trial of a search: a run with a run below it for each seed, and what it cost."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlflow
import numpy as np
from mlflow.entities import Run

from inandout.data.images import read_image
from inandout.errors import InputError
from inandout.search.study import RUN, Study, Trial, fail, finish, heartbeat, requeue
from inandout.stages.classify.config import ClassifyConfig
from inandout.tracking import artifact_folder, log_values, open_run

OVERHEAD_SECONDS, DIFFUSION_IMAGES, NEW_DIFFUSION_IMAGES = "seconds_outside_training", "diffusion_images", "diffusion_images_drawn"
"""Seconds of a trial in which it neither trained nor made images; images it needed; those that were not there."""
MAKING = ("augment", "negatives")
"""Stages that make images."""
METRICS = ("val_ap", "val_precision", "val_recall")
Validate = Callable[[ClassifyConfig], Run]
"""Gives the finished run of one seed, with `METRICS`."""


class TrialParams(NamedTuple):
    """What a trial's run has as parameters: numbers, which the UI's charts can take as axes."""

    alpha: float | None
    ddpm_ratio: float
    n_aug: int
    guidance: float | None
    lr: float


class Outcome(NamedTuple):
    """Of a trial that did not fail."""

    mean: float
    """Of the average precision, over the seeds that were run."""
    n_seeds: int
    pruned: bool


def run_trial(study: Study, trial: Trial, configs: Sequence[ClassifyConfig], validate: Validate, waited: float) -> None:
    """Measure one point with all seeds, or cut it short, and tell the study.

    The run of a trial that was cut short is FINISHED and tagged `inandout.pruned`: it ended as it was meant to. KILLED
    stays what a run is whose process was ended. A trial whose training breaks is FAILED.

    Args:
        study: that the trial is of.
        trial: of this process.
        configs: of the same point, one a seed.
        validate: measures one of them.
        waited: seconds that choosing the point took.
    """
    started = time.monotonic() - waited
    first = configs[0]
    params = TrialParams(first.alpha, first.ddpm_ratio, first.mix.n_aug, first.resolved().guidance, first.fit.lr)
    try:
        with open_run("trial", params._asdict(), "", f"trial-{trial.number:03d}") as run, heartbeat(study, trial):
            trial.set_user_attr(RUN, run.info.run_id)
            outcome = _measure(trial, configs, validate)
            _log_cost(trial, run.info.run_id, configs[: outcome.n_seeds], started)
    except InputError as error:
        fail(study, trial, str(error)[:500])
        print(f"trial {trial.number} at {trial.params} failed: {error}", flush=True)
        return
    except BaseException:
        requeue(study, trial)
        raise
    finish(study, trial, None if outcome.pruned else outcome.mean)
    ending = f", cut short after {outcome.n_seeds} of {len(configs)} seeds" if outcome.pruned else ""
    print(f"trial {trial.number} at {trial.params}: {outcome.mean:.4f}{ending}", flush=True)


def _measure(trial: Trial, configs: Sequence[ClassifyConfig], validate: Validate) -> Outcome:
    """Seed by seed; after each the mean of all so far is logged, and decides whether to go on."""
    mlflow.set_tag("inandout.trial", trial.number)
    rows: list[list[float]] = []
    for step, config in enumerate(configs):
        run = validate(config)
        if not rows:
            image = read_image(artifact_folder(run.info.run_id, "training_mix.png"))
            mlflow.log_image(image, artifact_file="samples.png")
        rows.append([run.data.metrics[name] for name in METRICS])
        means = dict(zip(METRICS, np.mean(rows, axis=0).tolist(), strict=True))
        _refuse_impossible(means)
        log_values(means, step=step)
        trial.report(means["val_ap"], step)
        if step < len(configs) - 1 and trial.should_prune():
            mlflow.set_tag("inandout.pruned", True)
            return Outcome(means["val_ap"], len(rows), True)
    if len(rows) > 1:
        mlflow.log_metric("val_ap_spread", float(np.std([row[0] for row in rows], ddof=1)))
    return Outcome(means["val_ap"], len(rows), False)


def _refuse_impossible(values: dict[str, float]) -> None:
    """Optuna would take an infinite objective for the best of all; MLflow gives it back as 1.8e308, which is finite."""
    broken = {name: value for name, value in values.items() if not 0 <= value <= 1}
    if broken:
        raise InputError(f"{broken} is not within 0..1: training broke the model, so this point has failed; lower lr")


def _log_cost(trial: Trial, run_id: str, configs: Sequence[ClassifyConfig], started: float) -> None:
    """What is below the run was done for this trial; everything else it needed was found where it was done before."""
    made = [run for seed_run in _children(run_id) for run in (seed_run, *_children(seed_run.info.run_id))]
    worked = sum(run.data.metrics.get("seconds_training", 0) for run in made)
    worked += sum(run.data.metrics["seconds"] for run in made if run.data.tags["inandout.stage"] in MAKING)
    costs = {
        DIFFUSION_IMAGES: sum(config.shares()[0] for config in configs),
        NEW_DIFFUSION_IMAGES: sum(run.data.metrics.get("ddpm_drawn", 0) for run in made),
        OVERHEAD_SECONDS: time.monotonic() - started - worked,
    }
    log_values(costs)
    for name, value in costs.items():
        trial.set_user_attr(name, value)


def _children(run_id: str) -> list[Run]:
    client = mlflow.MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return [run for run in found if run.info.status == "FINISHED"]
