"""Which points are tried: none twice, and the same whether or not the study was interrupted."""

from pathlib import Path

import optuna
import pytest

from inandout.errors import InputError
from inandout.search.space import Point, Space, build_space
from inandout.search.study import SharedStudy, claim_trial, fail, finish, open_study, point_of


def small(n_aug: int = 40, **changes: object) -> Space:
    return build_space(
        **{"alpha": 0.6, "alpha_step": 0.1, "n_aug": n_aug, "guidance": 3.0, "lr": 0.001} | changes  # type: ignore[arg-type]
    )


def search_on(folder: Path, n_trials: int, space: Space) -> list[Point]:
    """As another process would: everything is opened anew."""
    shared = open_study("", folder, "study", space, seed=0)
    while (trial := claim_trial(shared, n_trials).trial) is not None:
        point = point_of(trial, space)
        finish(shared.study, trial, -((point["alpha"] - 0.7) ** 2) - (point["ddpm_ratio"] - 0.4) ** 2)
    return points(shared)


def points(shared: SharedStudy) -> list[Point]:
    return [point_of(trial, shared.space) for trial in shared.study.get_trials()]


@pytest.fixture(scope="module")
def in_one_go(tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    return search_on(tmp_path_factory.mktemp("study"), 14, small())


def test_four_and_four_resumed_are_eight_points_and_those_of_one_go(tmp_path: Path, in_one_go: list[Point]) -> None:
    space = small()
    assert len(search_on(tmp_path, 4, space)) == 4
    resumed = search_on(tmp_path, 8, space)
    assert len({space.identity(point) for point in resumed}) == 8
    search_on(tmp_path, 11, space)
    assert search_on(tmp_path, 12, space) == in_one_go[:12], "the Gaussian process has had the say since ten"


def test_no_point_twice_and_the_paper_s_first(in_one_go: list[Point]) -> None:
    assert len({small().identity(point) for point in in_one_go}) == 14
    assert in_one_go[0] == small().start


def test_the_process_climbs_the_hill(in_one_go: list[Point]) -> None:
    distances = [abs(point["alpha"] - 0.7) + abs(point["ddpm_ratio"] - 0.4) for point in in_one_go]
    assert min(distances[10:]) < 0.25
    assert sum(distances[10:]) / 4 < sum(distances[:10]) / 10


def test_every_point_is_tried_before_there_is_none(tmp_path: Path) -> None:
    space = small(n_aug=2)
    shared = open_study("", tmp_path, "study", space, seed=3)
    for _ in range(23):
        trial = claim_trial(shared, 100).trial
        assert trial is not None
        fail(shared.study, trial, "no reason")
    assert len({space.identity(point) for point in points(shared)}) == 23
    with pytest.raises(InputError, match="have been tried"):
        claim_trial(shared, 100)


def test_what_is_searched_when_asked_stays_in_its_range(tmp_path: Path) -> None:
    space = small(also=["n_aug", "guidance", "lr"])
    for point in search_on(tmp_path, 9, space):
        assert point["n_aug"] in (20, 40, 60, 80)
        assert point["guidance"] in range(1, 11)
        assert 0.0001 <= point["lr"] <= 0.01


def test_another_seed_tries_other_points(tmp_path: Path) -> None:
    space = small()
    found = []
    for seed in (1, 2):
        shared = open_study("", tmp_path, str(seed), space, seed)
        found.append([point_of(trial, space) for _ in range(3) if (trial := claim_trial(shared, 3).trial) is not None])
    assert found[0][0] == found[1][0] == space.start
    assert found[0][1:] != found[1][1:]


def test_optuna_keeps_quiet(tmp_path: Path) -> None:
    open_study("", tmp_path, "study", small(), 0)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
