"""Which point is tried next: a Gaussian process, on points that have not been tried."""

from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.trial import FrozenTrial

from inandout.search.space import Point, Space

_FIXED = "fixed_params"
"""Where Optuna keeps the point of a trial that was put in the queue."""


class UntriedPointSampler(BaseSampler):
    """The start of the space, then random points until ten are measured, then what a Gaussian process expects most of.

    Optuna's GPSampler comes closest with few trials of two to five continuous values and some noise, where TPE and
    random search leave more than twice its regret. Two things it does not do: after a resume the same seed repeats the
    same points, and on a grid it proposes points again that are measured. So here the seed of a trial is a function of
    the study's seed and the trial's number, and of a process that is stopped nothing is missed: a study that was
    resumed tries the same points as one that was not. Of a point that was tried the nearest one that was not is taken.
    """

    def __init__(self, space: Space, seed: int) -> None:
        """`seed`: of the study, 0 or more."""
        self.space = space
        self.seed = seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All of it, from the first trial on."""
        return dict(self.space.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point that no other trial of the study has."""
        if _FIXED in trial.system_attrs:
            return {}
        others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        whole = [other.params for other in others if other.params.keys() == search_space.keys()]
        taken = {self.space.identity(params) for params in whole}
        point = self.space.rounded(self._propose(study, trial, search_space))
        return point if self.space.identity(point) not in taken else self.space.nearest_free(point, taken)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never: all values of a point are chosen together."""
        raise ValueError(f"{param_name} is not in the search space")

    def _propose(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Point:
        if trial.number == 0:
            return self.space.start
        seed = int(np.random.SeedSequence((self.seed, trial.number)).generate_state(1)[0])
        found = GPSampler(seed=seed, warn_independent_sampling=False).sample_relative(study, trial, search_space)
        if found:
            return found
        random = RandomSampler(seed=seed)
        return {name: random.sample_independent(study, trial, name, axis) for name, axis in search_space.items()}
