import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from inandout.evaluation.metrics import Scored
from inandout.evaluation.paired_test import paired_difference
from inandout.evaluation.power import Assumptions, detectable_difference, separation


def test_more_parts_seeds_and_correlation_show_smaller_differences() -> None:
    assumed = Assumptions()
    usual = detectable_difference(40, 120, 4, assumed)
    assert detectable_difference(160, 480, 4, assumed) < usual
    assert detectable_difference(40, 120, 8, assumed) < usual
    assert detectable_difference(40, 120, 4, assumed._replace(correlation=0.95)) < usual
    assert detectable_difference(40, 120, 4, assumed._replace(seed_spread=0.1)) > usual
    assert detectable_difference(40, 120, 4, assumed, images_per_part=4) > usual


@pytest.mark.parametrize(("ap", "prevalence"), [(0.7, 0.25), (0.9, 0.5)])
def test_the_separation_has_the_ap(ap: float, prevalence: float) -> None:
    rng, count = np.random.default_rng(0), 200_000
    labels = (np.arange(count) < prevalence * count).astype(int)
    scores = rng.normal(size=count) + separation(ap, prevalence) * labels
    assert average_precision_score(labels, scores) == pytest.approx(ap, abs=0.01)
    assert separation(0.2, 0.25) == 0


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_difference_of_this_size_is_found_in_80_percent(seeds: int) -> None:
    assumed, rng, trials = Assumptions(seed_spread=0.02), np.random.default_rng(0), 60
    labels = np.repeat([1, 0], [60, 180])
    size = detectable_difference(60, 180, seeds, assumed)
    low, high = (separation(assumed.ap + shift, 0.25) for shift in (-size / 2, size / 2))
    slope = (separation(0.71, 0.25) - separation(0.69, 0.25)) / 0.02
    found = 0
    for _ in range(trials):
        common = assumed.correlation**0.5 * rng.normal(size=240)
        sides = []
        for distance in (high, low):
            noise = common + (1 - assumed.correlation) ** 0.5 * rng.normal(size=240)
            spread = slope * assumed.seed_spread * rng.normal(size=seeds)
            sides.append([Scored(labels, noise + labels * (distance + each)) for each in spread])
        found += paired_difference(sides[0], sides[1], rounds=100).verdict() == "better"
    assert 0.65 <= found / trials <= 0.95
