"""Objective of a search: mean average precision on the validation part over seeds."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlflow
import numpy as np
from mlflow.entities import Run

from inandout.data.images import read_image
from inandout.errors import InputError
from inandout.search.study import Trial
from inandout.stages.classify.config import ClassifyConfig
from inandout.tracking.logging import log_values
from inandout.tracking.runs import artifact_folder

METRICS = ("val_ap", "val_precision", "val_recall")

Validate = Callable[[ClassifyConfig], Run]
"""Return the finished run of one seed, with `METRICS`."""


class Outcome(NamedTuple):
    """Result of a trial that did not fail."""

    mean: float
    """Mean average precision over the finished seeds."""
    n_seeds: int
    pruned: bool


def objective(trial: Trial, configs: Sequence[ClassifyConfig], validate: Validate) -> Outcome:
    """Return the mean average precision on the validation part over seeds, which Optuna maximises.

    After each seed the running mean is logged and reported, and Optuna may prune the trial.
    """
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
    """Raise InputError for values outside 0..1. MLflow returns infinity as 1.8e308, which Optuna would rank best."""
    broken = {name: value for name, value in values.items() if not 0 <= value <= 1}
    if broken:
        raise InputError(f"{broken} is not within 0..1 because training diverged; lower lr")
