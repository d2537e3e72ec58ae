"""Workers share a study: each trial is claimed by one worker, and trials of dead workers are retried."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from inandout.search import storage
from inandout.search.space import build_space
from inandout.search.study import (
    SharedStudy,
    best_trials,
    claim_trial,
    ended_trials,
    fail,
    finish,
    is_running,
    open_study,
    point_of,
    requeue,
)

SPACE = build_space(alpha=0.6, alpha_step=0.1, n_aug=40, guidance=3.0, lr=0.001)
WORKER = """
import os, sys, time
from pathlib import Path
from tests.search.test_study import opened
from inandout.search.study import claim_trial, finish, heartbeat
url, folder, n_trials, deadly = sys.argv[1:]
shared = opened(url, Path(folder))
while (trial := claim_trial(shared, int(n_trials)).trial) is not None:
    with heartbeat(shared.study, trial):
        trial.set_user_attr("pid", os.getpid())
        if trial.number == int(deadly):
            os._exit(9)
        time.sleep(0.2)
    finish(shared.study, trial, trial.params["alpha"])
"""


def opened(url: str, folder: Path) -> SharedStudy:
    return open_study(url, folder, "study", SPACE, seed=0)


def work(url: str, folder: Path, n_trials: int, deadly: int = -1) -> "subprocess.Popen[str]":
    arguments = [url, str(folder), str(n_trials), str(deadly)]
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stderr=subprocess.PIPE, text=True)


def check_two_workers(url: str, folder: Path) -> None:
    """Run two workers on nine trials; the worker that claims trial 2 crashes in it."""
    workers = [work(url, folder, 9, deadly=2) for _ in range(2)]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert sorted(worker.returncode for worker in workers) == [0, 9], errors
    shared = opened(url, folder)
    assert claim_trial(shared, 9).trial is None
    trials = shared.study.get_trials()
    assert [trial.state for trial in trials].count(TrialState.COMPLETE) == 9
    (dead,) = [trial for trial in trials if trial.state == TrialState.FAIL]
    (retry,) = [trial for trial in trials if trial.user_attrs.get("retry_of") == dead.number]
    assert (dead.number, retry.params) == (2, dead.params)
    counts = Counter(SPACE.identity(trial.params) for trial in trials)
    assert counts.pop(SPACE.identity(dead.params)) == 2
    assert set(counts.values()) == {1}
    assert len({trial.user_attrs["pid"] for trial in trials}) == 2, "both workers ran trials"


@pytest.mark.slow
def test_two_workers_run_n_trials_and_none_twice(tmp_path: Path) -> None:
    check_two_workers("", tmp_path)


@pytest.mark.slow
def test_two_workers_on_postgresql(postgres: str, tmp_path: Path) -> None:
    check_two_workers(postgres, tmp_path)


@pytest.mark.slow
def test_a_trial_of_another_machine_without_heartbeat_is_retried(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "HEARTBEAT", 1)
    monkeypatch.setattr(storage, "GRACE", 1)
    shared = opened(postgres, tmp_path)
    first = claim_trial(shared, 1).trial
    assert first is not None
    first.set_user_attr("process", '["another-machine", 1, 1.0]')
    shared.study._storage.record_heartbeat(first._trial_id)  # type: ignore[attr-defined]
    assert claim_trial(shared, 1).trial is None, "it may be alive"
    time.sleep(2.5)
    claimed = claim_trial(shared, 1)
    assert [trial.number for trial in claimed.dead] == [0]
    assert claimed.trial is not None
    assert claimed.trial.params == first.params


@pytest.mark.slow
def test_a_trial_of_a_dead_worker_is_retried_once(tmp_path: Path) -> None:
    assert work("", tmp_path, 3, deadly=1).wait(60) == 9
    shared = opened("", tmp_path)
    assert is_running(shared.study)
    claimed = claim_trial(shared, 3)
    assert [trial.number for trial in claimed.dead] == [1]
    assert claimed.trial is not None
    assert claimed.trial.params == claimed.dead[0].params
    finish(shared.study, claimed.trial, 0.5)
    third = claim_trial(shared, 3)
    assert third.dead == []
    assert third.trial is not None
    assert point_of(third.trial, SPACE) != point_of(claimed.trial, SPACE)
    finish(shared.study, third.trial, 0.6)
    assert claim_trial(shared, 3).trial is None
    assert len(ended_trials(shared.study)) == 3


def test_a_trial_of_a_live_worker_is_not_retried(tmp_path: Path) -> None:
    shared = opened("", tmp_path)
    first = claim_trial(shared, 1).trial
    assert first is not None
    other = claim_trial(opened("", tmp_path), 1)
    assert (other.trial, other.dead) == (None, [])
    assert is_running(shared.study)


def test_a_half_claimed_trial_does_not_count(tmp_path: Path) -> None:
    shared = opened("", tmp_path)
    shared.study.ask()  # the process died before it recorded itself
    claimed = claim_trial(shared, 1)
    assert claimed.trial is not None
    assert claimed.trial.params.keys() == SPACE.distributions.keys()
    finish(shared.study, claimed.trial, 0.5)
    assert claim_trial(shared, 1).trial is None


def test_a_failed_trial_counts_and_never_wins(tmp_path: Path) -> None:
    shared = opened("", tmp_path)
    broken, good, interrupted = (claim_trial(shared, 3).trial for _ in range(3))
    assert broken is not None and good is not None and interrupted is not None
    fail(shared.study, broken, "no finite loss")
    finish(shared.study, good, 0.1)
    requeue(shared.study, interrupted)
    retry = claim_trial(shared, 3).trial
    assert retry is not None
    assert retry.params == interrupted.params
    finish(shared.study, retry, 0.05)
    assert claim_trial(shared, 3).trial is None
    assert [trial.number for trial in best_trials(shared.study, 3)] == [good.number, retry.number]


def test_a_trial_below_the_median_is_pruned(tmp_path: Path) -> None:
    shared = opened("", tmp_path)
    for value in (0.5, 0.6, 0.7, 0.8, 0.9):
        trial = claim_trial(shared, 9).trial
        assert trial is not None
        trial.report(value, 0)
        trial.report(value, 1)
        assert not trial.should_prune(), "there is no median yet"
        finish(shared.study, trial, value)
    low, high, lucky = claim_trial(shared, 9).trial, claim_trial(shared, 9).trial, claim_trial(shared, 9).trial
    assert low is not None and high is not None and lucky is not None
    low.report(0.69, 0)
    high.report(0.71, 0)
    lucky.report(0.95, 0)
    assert [trial.should_prune() for trial in (low, high, lucky)] == [True, False, False]
    lucky.report(0.69, 1)
    assert lucky.should_prune(), "the mean so far counts, not the best one"
    high.report(0.72, 7)
    assert not high.should_prune(), "no other trial has as many seeds"
    finish(shared.study, low, None)
    assert shared.study.get_trials()[low.number].state == TrialState.PRUNED
