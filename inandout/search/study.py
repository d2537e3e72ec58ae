"""Studies shared by several workers: each trial is claimed by one worker, and trials of dead workers are retried."""

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
from inandout.search.config import Point
from inandout.search.gp_sampler import RETRY_OF, UntriedPointSampler
from inandout.search.space import Space
from inandout.search.storage import HEARTBEAT, Lock, open_store

PROCESS, ERROR, RUN = "process", "error", "run"
"""User attributes of a trial: its process, the reason of its failure, its run ID."""
_STARTUP = 5
"""Number of finished trials before pruning starts."""


class SharedStudy(NamedTuple):
    """A study, its space, and the lock held while a trial is claimed."""

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
    """A trial claimed by this process, or None, and the trials of dead workers found while claiming."""

    trial: Trial | None
    dead: list[FrozenTrial]


def open_study(url: str, folder: Path, name: str, space: Space, seed: int) -> SharedStudy:
    """Open the study `name`, or create it; see `open_store`.

    A trial is pruned if its mean over the seeds so far is below the median of the finished trials' means after the same
    number of seeds. All trials use the same seeds in the same order, so a difficult validation split affects all
    equally.
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
    """Claim the next trial for this process; None if `n_trials` trials have ended or are running.

    Trials of dead or interrupted processes do not count, and each is retried once.
    """
    study = shared.study
    with shared.lock():
        dead = _fail_dead_trials(study)
        trials = study.get_trials(deepcopy=False)
        to_retry = _not_retried(trials, shared.space)
        if to_retry:
            study.enqueue_trial(to_retry[0].params, user_attrs={RETRY_OF: to_retry[0].number})
        elif all(trial.state != TrialState.WAITING for trial in trials) and _counted(trials) >= n_trials:
            return ClaimedTrial(None, dead)
        trial = study.ask(fixed_distributions=dict(shared.space.distributions))
        trial.set_user_attr(PROCESS, this_process())
    return ClaimedTrial(trial, dead)


def is_running(study: Study) -> bool:
    """Return whether any worker is running a trial."""
    return any(trial.state == TrialState.RUNNING for trial in study.get_trials(deepcopy=False))


def finish(study: Study, trial: Trial, value: float | None) -> None:
    """Report the objective of a finished trial; None marks it as pruned with its last reported mean."""
    state = TrialState.PRUNED if value is None else TrialState.COMPLETE
    study.tell(trial, value, state=state, skip_if_finished=True)


def fail(study: Study, trial: Trial, reason: str) -> None:
    """Mark a trial as failed for good: it counts, is not retried and never wins."""
    trial.set_user_attr(ERROR, reason)
    study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def requeue(study: Study, trial: Trial) -> None:
    """Give up a trial so that another worker retries it."""
    study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def ended_trials(study: Study) -> list[FrozenTrial]:
    """Return the trials that have ended and count."""
    return [
        trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and not _is_requeued(trial)
    ]


def best_trials(study: Study, count: int) -> list[FrozenTrial]:
    """Return the `count` complete trials with the highest objective, the best first."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))[:count]


def point_of(trial: Trial | FrozenTrial, space: Space) -> Point:
    """Return the point of a trial."""
    return space.rounded(trial.params)


@contextmanager
def heartbeat(study: Study, trial: Trial) -> Iterator[None]:
    """Send heartbeats of a trial to a database; with a journal file, processes are checked on the machine itself."""
    record: Callable[[int], None] | None = getattr(study._storage, "record_heartbeat", None)
    if record is None:
        yield
        return
    stopped = threading.Event()

    def beat() -> None:
        record(trial._trial_id)
        while not stopped.wait(HEARTBEAT):
            record(trial._trial_id)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _fail_dead_trials(study: Study) -> list[FrozenTrial]:
    """Fail running trials of dead processes, and trials without a process, which died while claiming under the lock."""
    running = study.get_trials(states=(TrialState.RUNNING,))
    for trial in running:
        if PROCESS not in trial.user_attrs or is_dead(trial.user_attrs[PROCESS]):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # experimental since Optuna 2.9
        fail_stale_trials(study)
    failed = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.FAIL}
    return [trial for trial in running if trial.number in failed]


def _not_retried(trials: Sequence[FrozenTrial], space: Space) -> list[FrozenTrial]:
    """Return requeued trials that no other trial has retried yet."""
    retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    return [
        trial
        for trial in trials
        if _is_requeued(trial) and trial.number not in retried and trial.params.keys() == space.distributions.keys()
    ]


def _is_requeued(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and ERROR not in trial.user_attrs


def _counted(trials: Sequence[FrozenTrial]) -> int:
    return sum(trial.state != TrialState.WAITING and not _is_requeued(trial) for trial in trials)
