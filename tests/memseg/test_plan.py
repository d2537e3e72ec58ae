"""Negatives and seeds: without replacement, and smaller pools are prefixes of larger ones."""

import pytest

from inandout.errors import InputError
from inandout.memseg.plan import negative_of, plan


@pytest.mark.parametrize("n", [0, 1, 7, 20, 99])
def test_a_smaller_pool_is_a_prefix_of_a_larger_one(n: int) -> None:
    assert plan(10, n, seed=3) == plan(10, 100, seed=3)[:n]


def test_every_negative_is_used_before_any_is_repeated() -> None:
    chosen = [negative for negative, _ in plan(10, 35, seed=0)]
    for start in (0, 10, 20):
        assert sorted(chosen[start : start + 10]) == list(range(10))
    assert len(set(chosen[30:])) == 5
    assert chosen[:10] != chosen[10:20]


def test_seeds_are_unique_and_exact_in_json() -> None:
    seeds = [seed for _, seed in plan(3, 2000, seed=0)]
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) <= max(seeds) < 2**53


def test_another_seed_gives_another_plan() -> None:
    first, second = plan(50, 50, seed=0), plan(50, 50, seed=1)
    assert [negative for negative, _ in first] != [negative for negative, _ in second]
    assert {seed for _, seed in first}.isdisjoint(seed for _, seed in second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 5, 0), "0 images without a defect"), ((3, -1, 0), "n = -1"), ((3, 5, -2), "seed = -2")],
)
def test_invalid_arguments_raise_an_error(arguments: tuple[int, int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(*arguments)


def test_one_negative_of_a_plan_is_found_without_the_rest() -> None:
    assert [negative_of(10, number, seed=4) for number in range(35)] == [negative for negative, _ in plan(10, 35, 4)]
