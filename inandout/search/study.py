"""A study that several workers share: each trial is claimed by one, and those of dead workers are run once more."""

import statistics
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna import Study as Study
from optuna import Trial as Trial
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from inandout.processes import is_dead, this_process
from inandout.search.gp_sampler import UntriedPointSampler
from inandout.search.space import Point, Space
from inandout.search.storage import HEARTBEAT, Lock, open_store

PROCESS, ERROR, RETRY_OF, RUN = "process", "error", "retry_of", "run"
"""User attributes of a trial: who runs it; why it failed by its own fault; whose point it has; its run's id."""
_STARTUP = 5
"""Finished trials that a median needs."""


class SharedStudy(NamedTuple):
    """A study, its space, and the lock that is held while a trial is claimed."""

    study: Study
    space: Space
    lock: Lock


class RunningMeanPruner(BasePruner):
    """Cut a trial short when its last reported mean is below the median of the finished trials' at the same step.

    Optuna's `MedianPruner` compares the best value so far, which suits learning curves. The mean over seeds is none:
    one lucky seed at the beginning would keep a bad trial for good.
    """

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is to end; never before `_STARTUP` trials are finished."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        step = trial.last_step
        if step is None or len(done) < _STARTUP:
            return False
        others = [other.intermediate_values[step] for other in done if step in other.intermediate_values]
        return bool(others) and trial.intermediate_values[step] < statistics.median(others)


class ClaimedTrial(NamedTuple):
    """A trial of this process's, or None, and trials of others that were found dead on the way."""

    trial: Trial | None
    dead: list[FrozenTrial]


def open_study(url: str, folder: Path, name: str, space: Space, seed: int) -> SharedStudy:
    """The study of this name, made where there is none; see `open_store`.

    A trial is cut short when the mean over its seeds so far is below the median of the finished trials' means after as
    many seeds: the same seeds in the same order, so a hard draw of the validation part is hard for all.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    store = open_store(url, folder, name)
    with store.lock():
        study = optuna.create_study(
            study_name=name, storage=store.storage, direction="maximize", load_if_exists=True,
            sampler=UntriedPointSampler(space, seed), pruner=RunningMeanPruner(),
        )  # fmt: skip
    return SharedStudy(study, space, store.lock)


def claim_trial(shared: SharedStudy, n_trials: int) -> ClaimedTrial:
    """The next trial for this process; None when there are `n_trials`, of which others may be running still.

    Trials whose process died or that were interrupted do not count; one other trial gets the point of each.
    """
    study = shared.study
    with shared.lock():
        dead = _fail_dead_trials(study)
        trials = study.get_trials(deepcopy=False)
        again = _unrepeated(trials, shared.space)
        if again:
            study.enqueue_trial(again[0].params, user_attrs={RETRY_OF: again[0].number})
        elif all(trial.state != TrialState.WAITING for trial in trials) and _counted(trials) >= n_trials:
            return ClaimedTrial(None, dead)
        trial = study.ask(fixed_distributions=dict(shared.space.distributions))
        trial.set_user_attr(PROCESS, this_process())
    return ClaimedTrial(trial, dead)


def is_running(study: Study) -> bool:
    """Whether a trial of any worker is under way."""
    return any(trial.state == TrialState.RUNNING for trial in study.get_trials(deepcopy=False))


def finish(study: Study, trial: Trial, value: float | None) -> None:
    """The objective of a finished trial; None for one that was cut short, which keeps its last mean."""
    state = TrialState.PRUNED if value is None else TrialState.COMPLETE
    study.tell(trial, value, state=state, skip_if_finished=True)


def fail(study: Study, trial: Trial, reason: str) -> None:
    """The point cannot be measured, today or tomorrow: it counts, and never wins."""
    trial.set_user_attr(ERROR, reason)
    study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def requeue(study: Study, trial: Trial) -> None:
    """This process cannot finish the trial; another one will."""
    study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def ended_trials(study: Study) -> list[FrozenTrial]:
    """Trials that count and have ended."""
    return [
        trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and not _is_requeued(trial)
    ]


def best_trials(study: Study, count: int) -> list[FrozenTrial]:
    """Finished trials with the highest objective, the best first."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(done, key=lambda trial: (-(trial.value or 0.0), trial.number))[:count]


def point_of(trial: Trial | FrozenTrial, space: Space) -> Point:
    """What is tried."""
    return space.rounded(trial.params)


@contextmanager
def heartbeat(study: Study, trial: Trial) -> Iterator[None]:
    """Tell a database now and then that the trial is alive; a journal file needs no telling, its machine can look."""
    record: Callable[[int], None] | None = getattr(study._storage, "record_heartbeat", None)
    if record is None:
        yield
        return
    ended_trials = threading.Event()

    def beat() -> None:
        record(trial._trial_id)
        while not ended_trials.wait(HEARTBEAT):
            record(trial._trial_id)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended_trials.set()
        thread.join()


def _fail_dead_trials(study: Study) -> list[FrozenTrial]:
    """End trials without a process. Called under the lock, so one that names none was left there in the middle."""
    running = study.get_trials(states=(TrialState.RUNNING,))
    for trial in running:
        if PROCESS not in trial.user_attrs or is_dead(trial.user_attrs[PROCESS]):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # it has been experimental since Optuna 2.9
        fail_stale_trials(study)
    ended_trials = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.FAIL}
    return [trial for trial in running if trial.number in ended_trials]


def _unrepeated(trials: Sequence[FrozenTrial], space: Space) -> list[FrozenTrial]:
    """Abandoned trials whose point no other trial has got yet."""
    repeated = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return [
        trial
        for trial in trials
        if _is_requeued(trial) and trial.number not in repeated and trial.params.keys() == space.distributions.keys()
    ]


def _is_requeued(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and ERROR not in trial.user_attrs


def _counted(trials: Sequence[FrozenTrial]) -> int:
    return sum(trial.state != TrialState.WAITING and not _is_requeued(trial) for trial in trials)
