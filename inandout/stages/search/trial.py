"""One trial of a search: a run with a child run for each seed, and its cost."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import mlflow
from mlflow.entities import Run

from inandout.errors import InputError
from inandout.search.study import RUN, Study, Trial, fail, finish, heartbeat, requeue
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.search.objective import Validate, objective
from inandout.tracking.logging import log_values
from inandout.tracking.runs import open_run

OVERHEAD_SECONDS = "seconds_outside_training"
"""Seconds of a trial without training and image generation."""
DIFFUSION_IMAGES, NEW_DIFFUSION_IMAGES = "diffusion_images", "diffusion_images_drawn"
"""Metrics of a trial: diffusion images that it needed, and those that it had to draw."""
IMAGE_STAGES = ("augment", "negatives")
"""Stages that generate images."""


class TrialParams(NamedTuple):
    """Parameters of a trial's run: numbers, which charts in the UI can use as axes."""

    alpha: float | None
    ddpm_ratio: float
    n_aug: int
    guidance: float | None
    lr: float


def run_trial(study: Study, trial: Trial, configs: Sequence[ClassifyConfig], validate: Validate, waited: float) -> None:
    """Evaluate one point with all seeds, unless it is pruned, and report the result to the study.

    The run of a pruned trial is FINISHED and tagged `inandout.pruned`. A trial whose training diverges is FAILED.
    KILLED is reserved for interrupted processes.

    Args:
        study: study of the trial.
        trial: trial of this process.
        configs: configurations of the point, one per seed.
        validate: trains and evaluates a configuration.
        waited: seconds that the choice of the point took.
    """
    started = time.monotonic() - waited
    first = configs[0]
    params = TrialParams(first.alpha, first.ddpm_ratio, first.mix.n_aug, first.resolved().guidance, first.fit.lr)
    try:
        with open_run("trial", params._asdict(), "", f"trial-{trial.number:03d}") as run, heartbeat(study, trial):
            trial.set_user_attr(RUN, run.info.run_id)
            outcome = objective(trial, configs, validate)
            _log_cost(trial, run.info.run_id, configs[: outcome.n_seeds], started)
    except InputError as error:
        fail(study, trial, str(error)[:500])
        print(f"trial {trial.number} at {trial.params} failed: {error}", flush=True)
        return
    except BaseException:
        requeue(study, trial)
        raise
    finish(study, trial, None if outcome.pruned else outcome.mean)
    ending = f", pruned after {outcome.n_seeds} of {len(configs)} seeds" if outcome.pruned else ""
    print(f"trial {trial.number} at {trial.params}: {outcome.mean:.4f}{ending}", flush=True)


def _log_cost(trial: Trial, run_id: str, configs: Sequence[ClassifyConfig], started: float) -> None:
    """Log the cost of a trial. Runs below its run were computed for it; all other results were reused."""
    computed = [run for seed_run in _children(run_id) for run in (seed_run, *_children(seed_run.info.run_id))]
    worked = sum(run.data.metrics.get("seconds_training", 0) for run in computed)
    worked += sum(run.data.metrics["seconds"] for run in computed if run.data.tags["inandout.stage"] in IMAGE_STAGES)
    costs = {
        DIFFUSION_IMAGES: sum(config.shares()[0] for config in configs),
        NEW_DIFFUSION_IMAGES: sum(run.data.metrics.get("ddpm_drawn", 0) for run in computed),
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
