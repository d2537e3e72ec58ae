from typing import Any

import pytest

from inandout.errors import InputError
from inandout.search.space import Space, build_space


def space(**changes: Any) -> Space:
    usual: dict[str, Any] = {"alpha": 0.95, "alpha_step": 0.1, "n_aug": 40, "guidance": 3.0, "lr": 0.001}
    return build_space(**usual | changes)


def test_points_that_train_the_same_classifier_have_one_identity() -> None:
    identity = space().identity
    assert identity({"alpha": 0.1, "ddpm_ratio": 0.0}) == identity({"alpha": 0.9, "ddpm_ratio": 0.0})
    assert identity({"alpha": 0.1, "ddpm_ratio": 0.1}) != identity({"alpha": 0.9, "ddpm_ratio": 0.1})
    few = space(n_aug=2).identity
    assert few({"alpha": 0.5, "ddpm_ratio": 0.5}) == few({"alpha": 0.5, "ddpm_ratio": 0.9}), "one of two, rounded down"


@pytest.mark.parametrize(("step", "n_aug", "expected"), [(0.1, 40, 1 + 11 * 10), (0.05, 40, 1 + 21 * 10), (0.1, 2, 23)])
def test_the_size_is_the_number_of_different_points(step: float, n_aug: int, expected: int) -> None:
    assert space(alpha_step=step, n_aug=n_aug).size() == expected
    assert space(alpha_step=step, n_aug=n_aug, also=["lr"]).size() is None


def test_the_start_is_the_given_point_rounded_to_the_grid() -> None:
    assert space(alpha_step=0.05).start == {"alpha": 0.95, "ddpm_ratio": 0.5}
    start = space(also=["n_aug", "guidance", "lr"], guidance=7.5).start
    assert start.pop("alpha") in (0.9, 1.0)
    assert start == {"ddpm_ratio": 0.5, "n_aug": 40, "guidance": 8.0, "lr": 0.001}


def test_the_nearest_untried_point_is_on_the_grid() -> None:
    grid = space()
    target = {"alpha": 0.3, "ddpm_ratio": 0.5}
    tried = {grid.identity(target), grid.identity({"alpha": 0.2, "ddpm_ratio": 0.5})}
    found = grid.nearest_untried(target, tried)
    assert grid.identity(found) not in tried
    assert abs(found["alpha"] - 0.3) + abs(found["ddpm_ratio"] - 0.5) == pytest.approx(0.1)
    assert found == grid.rounded(found)


def test_an_exhausted_space_is_an_input_error() -> None:
    small = space(n_aug=2)
    every = {small.identity({"alpha": a / 10, "ddpm_ratio": r / 10}) for a in range(11) for r in range(11)}
    with pytest.raises(InputError, match="lower n_trials"):
        small.nearest_untried(small.start, every)
