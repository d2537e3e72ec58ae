"""Points are never tried twice and do not depend on interruptions of the study."""

from pathlib import Path

import optuna
import pytest

from inandout.errors import InputError
from inandout.search.config import Point
from inandout.search.space import Space, build_space
from inandout.search.study import SharedStudy, claim_trial, fail, finish, open_study, point_of, requeue


def small(n_aug: int = 40, **changes: object) -> Space:
    return build_space(
        **{"alpha": 0.6, "alpha_step": 0.1, "n_aug": n_aug, "guidance": 3.0, "lr": 0.001} | changes  # type: ignore[arg-type]
    )


def search_on(folder: Path, n_trials: int, space: Space) -> list[Point]:
    """Run a search that opens the study again, like another process."""
    shared = open_study("", folder, "study", space, seed=0)
    while (trial := claim_trial(shared, n_trials).trial) is not None:
        point = point_of(trial, space)
        finish(shared.study, trial, -((point["alpha"] - 0.7) ** 2) - (point["ddpm_ratio"] - 0.4) ** 2)
    return points(shared)


def points(shared: SharedStudy) -> list[Point]:
    return [point_of(trial, shared.space) for trial in shared.study.get_trials()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    return search_on(tmp_path_factory.mktemp("study"), 14, small())


def test_a_resumed_study_tries_the_points_of_an_uninterrupted_one(tmp_path: Path, uninterrupted: list[Point]) -> None:
    space = small()
    assert len(search_on(tmp_path, 4, space)) == 4
    resumed = search_on(tmp_path, 8, space)
    assert len({space.identity(point) for point in resumed}) == 8
    search_on(tmp_path, 11, space)
    assert search_on(tmp_path, 12, space) == uninterrupted[:12], "the Gaussian process proposes from the tenth trial on"


@pytest.mark.parametrize("killed", [{0}, {1, 4}, {2, 3, 10}])
def test_a_killed_study_tries_the_points_of_an_uninterrupted_one(
    tmp_path: Path, uninterrupted: list[Point], killed: set[int]
) -> None:
    """A killed trial is retried at the same point; a process that dies while claiming leaves a trial without one."""
    space, done = small(), 0
    while done < 12:
        shared = open_study("", tmp_path, "study", space, seed=0)
        if done in killed:
            killed = killed - {done}
            shared.study.ask()
            interrupted = claim_trial(shared, 12).trial
            assert interrupted is not None
            requeue(shared.study, interrupted)
            continue
        trial = claim_trial(shared, 12).trial
        assert trial is not None
        point = point_of(trial, space)
        finish(shared.study, trial, -((point["alpha"] - 0.7) ** 2) - (point["ddpm_ratio"] - 0.4) ** 2)
        done += 1
    complete = [trial for trial in shared.study.get_trials() if trial.state.name == "COMPLETE"]
    assert [point_of(trial, space) for trial in complete] == uninterrupted[:12]


def test_points_are_unique_and_the_first_is_the_start(uninterrupted: list[Point]) -> None:
    assert len({small().identity(point) for point in uninterrupted}) == 14
    assert uninterrupted[0] == small().start


def test_the_gaussian_process_approaches_the_optimum(uninterrupted: list[Point]) -> None:
    distances = [abs(point["alpha"] - 0.7) + abs(point["ddpm_ratio"] - 0.4) for point in uninterrupted]
    assert min(distances[10:]) < 0.25
    assert sum(distances[10:]) / 4 < sum(distances[:10]) / 10


def test_every_point_is_tried_before_the_space_is_exhausted(tmp_path: Path) -> None:
    space = small(n_aug=2)
    shared = open_study("", tmp_path, "study", space, seed=3)
    for _ in range(23):
        trial = claim_trial(shared, 100).trial
        assert trial is not None
        fail(shared.study, trial, "no reason")
    assert len({space.identity(point) for point in points(shared)}) == 23
    with pytest.raises(InputError, match="have been tried"):
        claim_trial(shared, 100)


def test_optional_parameters_stay_in_their_range(tmp_path: Path) -> None:
    space = small(also=["n_aug", "guidance", "lr"])
    for point in search_on(tmp_path, 9, space):
        assert point["n_aug"] in (20, 40, 60, 80)
        assert point["guidance"] in range(1, 11)
        assert 0.0001 <= point["lr"] <= 0.01


def test_another_seed_tries_other_points(tmp_path: Path) -> None:
    space = small()
    tried = []
    for seed in (1, 2):
        shared = open_study("", tmp_path, str(seed), space, seed)
        tried.append([point_of(trial, space) for _ in range(3) if (trial := claim_trial(shared, 3).trial) is not None])
    assert tried[0][0] == tried[1][0] == space.start
    assert tried[0][1:] != tried[1][1:]


def test_optuna_logs_warnings_only(tmp_path: Path) -> None:
    open_study("", tmp_path, "study", small(), 0)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
