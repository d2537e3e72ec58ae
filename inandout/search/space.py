"""What is searched: alpha and ddpm_ratio on a grid, and others when asked for."""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from inandout.errors import InputError
from inandout.mixing import split_counts

Point: TypeAlias = dict[str, float]
"""Values by name: `alpha`, `ddpm_ratio`, and of `n_aug`, `guidance`, `lr` those that are searched."""
Identity: TypeAlias = tuple[float, ...]
"""What a classifier is trained with at a point: equal for points that train the same."""
Extra = Literal["n_aug", "guidance", "lr"]

RATIO_STEP = 0.1
GUIDANCE = (1.0, 10.0)
"""Least and greatest guidance that is tried, in steps of 1, so that pools are shared."""


@dataclass(frozen=True)
class Space:
    """The points of a study.

    `alpha` lies on a grid, as every value of it costs a pool of images: on one, trials share them. `ddpm_ratio` lies
    on one of `RATIO_STEP`; it costs at most the images that a larger share lacks.
    """

    distributions: dict[str, FloatDistribution | IntDistribution]
    start: Point
    """Of the first trial."""
    n_aug: int
    """Where it is not searched."""

    def identity(self, point: Mapping[str, float]) -> Identity:
        """Without a diffusion image in the mix, alpha and guidance do not count; ratios that round alike are one."""
        shares = split_counts(int(point.get("n_aug", self.n_aug)), point["ddpm_ratio"])
        drawn = (point["alpha"], point.get("guidance", 0.0)) if shares[0] else ()
        return (*shares, point.get("lr", 0.0), *drawn)

    def size(self) -> int | None:
        """How many different points there are; None where more than alpha and ddpm_ratio is searched."""
        if len(self.distributions) > 2:
            return None
        return len({self.identity(point) for point in self._grid(self.start)})

    def rounded(self, point: Mapping[str, float]) -> Point:
        """Without the last digits that come from counting steps in floating point, which would be another pool."""
        return {name: value if name == "lr" else round(value, 6) for name, value in point.items()}

    def nearest_free(self, wanted: Mapping[str, float], taken: Set[Identity]) -> Point:
        """The point closest to `wanted` in alpha and ddpm_ratio that trains what none of `taken` does.

        Raises:
            InputError: all of them are taken.
        """
        free = [point for point in self._grid(wanted) if self.identity(point) not in taken]
        if not free:
            raise InputError(f"all points at {dict(wanted)} have been tried; lower n_trials, or search more with also")
        return min(free, key=lambda point: sum((point[name] - wanted[name]) ** 2 for name in ("alpha", "ddpm_ratio")))

    def _grid(self, others: Mapping[str, float]) -> Iterator[Point]:
        axes = [_steps(self.distributions[name]) for name in ("alpha", "ddpm_ratio")]
        for alpha, ratio in product(*axes):
            yield {**others, "alpha": alpha, "ddpm_ratio": ratio}


def build_space(
    *, alpha: float, alpha_step: float, n_aug: int, guidance: float, lr: float, also: Iterable[Extra] = ()
) -> Space:
    """The space around given values, which the first trial has, to the nearest step.

    Args:
        alpha: 0..1.
        alpha_step: divides 1.
        n_aug: 2 or more; if searched, .5, 1, 1.5 and 2 times that.
        guidance: if searched, within `GUIDANCE`.
        lr: if searched, from a tenth to ten times that, by its logarithm, 10 at most.
        also: what is searched besides alpha and ddpm_ratio.
    """
    half = n_aug // 2
    extras: dict[Extra, tuple[FloatDistribution | IntDistribution, float]] = {
        "n_aug": (IntDistribution(half, 4 * half, step=half), 2 * half),
        "guidance": (FloatDistribution(*GUIDANCE, step=1), float(np.clip(round(guidance), *GUIDANCE))),
        "lr": (FloatDistribution(lr / 10, min(lr * 10, 10.0), log=True), lr),
    }
    axes: dict[str, FloatDistribution | IntDistribution] = {
        "alpha": FloatDistribution(0, 1, step=alpha_step),
        "ddpm_ratio": FloatDistribution(0, 1, step=RATIO_STEP),
    }
    nearest = min(_steps(axes["alpha"]), key=lambda value: abs(value - alpha))
    start: Point = {"alpha": nearest, "ddpm_ratio": 0.5} | {name: extras[name][1] for name in also}
    return Space(axes | {name: extras[name][0] for name in also}, start, n_aug)


def _steps(axis: FloatDistribution | IntDistribution) -> list[float]:
    assert axis.step is not None
    count = round((axis.high - axis.low) / axis.step)
    return [round(axis.low + i * axis.step, 6) for i in range(count + 1)]
