"""Entry point `search`: choose alpha and ddpm_ratio on the validation part, then evaluate once on the test part."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import mlflow
import numpy as np
from mlflow.entities import Run

from inandout.data.manifest import Sample, fingerprint
from inandout.data.prepare import CheckedData, read_data
from inandout.errors import InputError
from inandout.fingerprints import Identity
from inandout.options import known
from inandout.parallel import run_all
from inandout.search.config import Point
from inandout.search.plots import figures
from inandout.search.space import Space, build_space
from inandout.search.study import (
    ERROR,
    RUN,
    SharedStudy,
    Study,
    best_trials,
    claim_trial,
    ended_trials,
    is_running,
    open_study,
    point_of,
)
from inandout.stages.classify.train import ignored_options, input_fingerprints, refuse_impossible
from inandout.stages.classify.validate import validate, without_test
from inandout.stages.pools.text2img import adapter_run
from inandout.stages.search.config import EXTRAS, SearchConfig
from inandout.stages.search.finalists import DEFAULT, measure_finalists
from inandout.stages.search.trial import DIFFUSION_IMAGES, NEW_DIFFUSION_IMAGES, OVERHEAD_SECONDS, run_trial
from inandout.stages.search.validation_set import ValidationSet, build_validation_set
from inandout.tracking.logging import describe_location, log_dataset, log_values
from inandout.tracking.runs import open_run, record_reuse
from inandout.tracking.store import RunLocation, connect, nested_under, run_location, state_folder

FINALISTS = 3
"""Number of points in the final comparison."""
ENDS = ("COMPLETE", "PRUNED", "FAIL")
"""Final states of a trial in Optuna."""
_POLL_SECONDS = 2.0
"""Seconds between checks of trials of other workers."""


def search(config: SearchConfig) -> str:
    """Find alpha and ddpm_ratio by validation, then evaluate the best three and the default on the test part.

    The same command resumes a study; several processes may work on it at once.
    """
    connect()
    config = config.resolved()
    space = search_space(config)
    size = space.size()
    if size is not None and config.n_trials > size:
        raise InputError(f"n_trials = {config.n_trials}: the space has {size} points; give 1 to {size}")
    data = read_data(config.data.data)
    refuse_impossible(config.default(config.seeds)[0], data)
    samples = data.take_shot(config.data, config.scenario, config.seed)
    key = _study_key(config, samples)
    shared = _open(config, key)
    with _study_run(shared, config, key) as run:
        log_dataset(config.data.data, fingerprint(without_test(samples)), without_test(samples))
        adapter_run(config.held_out(), samples)
        validation_set = build_validation_set(known(config.objective), config.held_out(), data)
        mlflow.set_tag("inandout.objective", validation_set.sentence)
        print(f"objective: {validation_set.sentence}", flush=True)
        for task in run_all(partial(_work, run_location(), key, data), config.workers_alone(), config.engine):
            if task.error is not None:
                raise task.error
        with shared.lock():
            sentence = _finish(shared, config, data)
    print(f"\n{sentence}\n\n{describe_location(run, 'trials')}")
    return sentence


def search_space(config: SearchConfig) -> Space:
    """Return the search space around the defaults for base and shot."""
    return build_space(
        alpha=config.default_alpha(), alpha_step=config.alpha_step, n_aug=config.mix.n_aug,
        guidance=config.preset().whole.guidance, lr=config.fit.lr,
        also=[name for name in EXTRAS if name in config.also.split(",")],
    )  # fmt: skip


def _open(config: SearchConfig, key: str) -> SharedStudy:
    return open_study(config.storage, state_folder() / "studies", key, search_space(config), config.seed)


def _work(location: RunLocation, key: str, data: CheckedData, config: SearchConfig) -> None:
    """Run trials of the study in a worker process until it has `n_trials`."""
    with nested_under(location):
        validation_set = build_validation_set(known(config.objective), config.held_out(), data)
        _run_trials(_open(config, key), config, validation_set, data)


def _study_key(config: SearchConfig, samples: list[Sample]) -> str:
    """Return the identity of the study: everything that changes the objective, including the code.

    A study can be resumed with other values of `n_trials`, `fresh_seeds`, `storage`, `workers` and `cluster`.
    """
    default = config.default(config.seeds)[0]
    inputs = {"data": fingerprint(samples)} | input_fingerprints(default)
    free = {"n_trials", "fresh_seeds", "storage", "workers", "cluster"}
    ignored = free | (ignored_options(default, inputs) & config.options().keys())
    return Identity("search", __name__, config, inputs, ignored).fingerprint


@contextmanager
def _study_run(shared: SharedStudy, config: SearchConfig, key: str) -> Iterator[Run]:
    """Open the run of the study, which all workers share; a later run of `mlflow run` refers to it."""
    with ExitStack() as stack:
        with shared.lock():
            run_id = _known_run(shared)
            outer = os.environ.pop("MLFLOW_RUN_ID", None) if run_id else None
            name = f"search {config.scenario.shot} of {', '.join(shared.space.distributions)}"
            run = stack.enter_context(open_run("search", config.flat(), key, name, run_id))
            shared.study.set_user_attr(RUN, run.info.run_id)
        mlflow.set_tag("inandout.n_trials", config.n_trials)  # a parameter could not increase
        yield run
    if outer is not None and outer != run_id:
        os.environ["MLFLOW_RUN_ID"] = outer
        record_reuse("search", config.flat(), mlflow.get_run(run.info.run_id))


def _known_run(shared: SharedStudy) -> str | None:
    """Return the id of the study's run, if this store has it."""
    run_id: str | None = shared.study.user_attrs.get(RUN)
    experiments = [experiment.experiment_id for experiment in mlflow.MlflowClient().search_experiments()]
    found = mlflow.MlflowClient().search_runs(experiments, f"attributes.run_id = '{run_id}'") if run_id else []
    return found[0].info.run_id if found else None


def _run_trials(shared: SharedStudy, config: SearchConfig, validation_set: ValidationSet, data: CheckedData) -> None:
    """Run trials until the study has `n_trials`, then wait for other workers; take over the trials of dead ones."""
    waiting = False
    while True:
        started = time.monotonic()
        claimed = claim_trial(shared, config.n_trials)
        for trial in claimed.dead:
            if RUN in trial.user_attrs:
                _close(trial.user_attrs[RUN])
        if claimed.trial is not None:
            configs = config.classifiers(point_of(claimed.trial, shared.space), config.seeds)
            waited = time.monotonic() - started
            run_trial(
                shared.study,
                claimed.trial,
                configs,
                lambda config: validate(config, validation_set.samples, data),
                waited,
            )
        elif is_running(shared.study):
            if not waiting:
                print("waiting for trials of other workers", flush=True)
            waiting = True
            time.sleep(_POLL_SECONDS)
        else:
            return


def _close(run_id: str) -> None:
    """End the running runs of a dead process: the run of its trial and its child runs."""
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    if run.info.status == "RUNNING":
        client.set_terminated(run_id, "KILLED")
    for child in client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'"):
        _close(child.info.run_id)


def _finish(shared: SharedStudy, config: SearchConfig, data: CheckedData) -> str:
    """Log figures and totals of the study, then evaluate the finalists; a second process reuses finished runs."""
    leaders = best_trials(shared.study, FINALISTS)
    if not leaders:
        reasons = [trial.user_attrs.get(ERROR, "") for trial in ended_trials(shared.study)]
        raise InputError(f"all {len(reasons)} trials failed, the first with: {reasons[0]}")
    log_values(_sums(shared.study) | {"best_val_ap": leaders[0].value or 0.0})
    for name, figure in figures(shared.study).items():
        mlflow.log_figure(figure, f"study/{name}.png")
    points = {f"trial {trial.number}": point_of(trial, shared.space) for trial in leaders}
    names = {name: f"{name} ({_words(point)})" for name, point in points.items()}
    final_report = measure_finalists(
        {names[name]: config.classifiers(point, config.fresh_seeds) for name, point in points.items()},
        config.default(config.fresh_seeds),
        data,
    )
    mlflow.set_tag("inandout.conclusion", final_report.sentence)
    text = f"{final_report.table}\n\n{DEFAULT}: {_words(config.default_point())}\n\n{final_report.sentence}\n"
    mlflow.log_text(text, "results.md")
    if final_report.difference is not None:
        log_values({f"ap_rise_{name}": value for name, value in final_report.difference._asdict().items()})
    print(f"\n{final_report.table}", flush=True)
    return final_report.sentence


def _words(point: Point) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in point.items())


def _sums(study: Study) -> dict[str, float]:
    """Return the number of trials by final state, and their cost outside training."""
    trials = ended_trials(study)
    costs = [trial.user_attrs for trial in trials if OVERHEAD_SECONDS in trial.user_attrs]
    needed, drawn = (sum(cost[name] for cost in costs) for name in (DIFFUSION_IMAGES, NEW_DIFFUSION_IMAGES))
    ends = {f"n_{name.lower()}": float(sum(t.state.name == name for t in trials)) for name in ENDS}
    ends[f"{OVERHEAD_SECONDS}_mean"] = float(np.mean([cost[OVERHEAD_SECONDS] for cost in costs]))
    ends |= {NEW_DIFFUSION_IMAGES: drawn, DIFFUSION_IMAGES: needed}
    return ends | ({"share_of_diffusion_reused": 1 - drawn / needed} if needed else {})
