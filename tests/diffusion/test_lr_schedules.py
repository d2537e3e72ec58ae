import math
from itertools import pairwise

import pytest

from inandout.diffusion.lr_schedules import cosine_with_restarts, hold_and_decay, warm_up_and_decay


def test_each_of_three_cosines_falls_from_the_highest_rate_to_almost_zero() -> None:
    rates = [cosine_with_restarts(step, 300, 0.01, 3) for step in range(1, 301)]
    for begin in (0, 100, 200):
        assert rates[begin] == 0.01
        assert rates[begin + 50] == pytest.approx(0.005)
        assert rates[begin + 99] < 0.00001
        assert rates[begin : begin + 100] == sorted(rates[begin : begin + 100], reverse=True)


def test_the_rate_is_constant_and_decays_over_the_last_30_percent() -> None:
    assert hold_and_decay(100, 10_000, 0.01) == pytest.approx(0.005)
    assert {hold_and_decay(step, 10_000, 0.01) for step in (200, 3000, 7000)} == {0.01}
    assert hold_and_decay(8500, 10_000, 0.01) == pytest.approx(0.005)
    assert hold_and_decay(10_000, 10_000, 0.01) == 0
    assert hold_and_decay(3000, 20_000, 0.01) == hold_and_decay(3000, 10_000, 0.01)


@pytest.mark.parametrize("steps", [1, 2, 50, 100, 250, 286, 400, 2000])
def test_a_rate_never_jumps_however_short_the_training(steps: int) -> None:
    rates = [hold_and_decay(step, steps, 1.0) for step in range(1, steps + 1)]
    steepest = max(1 / 200, math.pi / 2 / (0.3 * steps))
    assert all(abs(later - earlier) <= 1.01 * steepest for earlier, later in pairwise([0.0, *rates]))
    assert rates[-1] == 0
    assert max(rates) <= min(1, steps / 200)


def test_the_rate_warms_up_and_decays() -> None:
    assert [warm_up_and_decay(step, 1100, 0.01) for step in (50, 100, 600)] == pytest.approx([0.005, 0.01, 0.005])
    assert warm_up_and_decay(1100, 1100, 0.01) == 0
