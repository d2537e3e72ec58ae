"""The search space: alpha and ddpm_ratio on a grid, and optionally n_aug, guidance and lr."""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from inandout.errors import InputError
from inandout.mixing import split_counts
from inandout.search.config import Extra, Point

Identity: TypeAlias = tuple[float, ...]
"""Effective training parameters of a point; equal for points that train the same classifier."""

RATIO_STEP = 0.1
GUIDANCE = (1.0, 10.0)
"""Minimum and maximum guidance, in steps of 1 so that trials share pools."""


@dataclass(frozen=True)
class Space:
    """The search space of a study.

    `alpha` lies on a grid because every value requires its own pool of images, which trials then share. `ddpm_ratio`
    lies on a grid with step `RATIO_STEP`; a larger ratio only extends the pool.
    """

    distributions: dict[str, FloatDistribution | IntDistribution]
    start: Point
    """Point of the first trial."""
    n_aug: int
    """Value used if `n_aug` is not searched."""

    def identity(self, point: Mapping[str, float]) -> Identity:
        """Return the effective training parameters of a point.

        Ratios that round to the same counts are equal, and alpha and guidance are ignored without diffusion images.
        """
        counts = split_counts(int(point.get("n_aug", self.n_aug)), point["ddpm_ratio"])
        diffusion = (point["alpha"], point.get("guidance", 0.0)) if counts[0] else ()
        return (*counts, point.get("lr", 0.0), *diffusion)

    def size(self) -> int | None:
        """Return the number of different points; None if more than alpha and ddpm_ratio is searched."""
        if len(self.distributions) > 2:
            return None
        return len({self.identity(point) for point in self._grid(self.start)})

    def rounded(self, point: Mapping[str, float]) -> Point:
        """Return the point without floating-point noise, which would require another pool."""
        return {name: value if name == "lr" else round(value, 6) for name, value in point.items()}

    def nearest_untried(self, target: Mapping[str, float], tried: Set[Identity]) -> Point:
        """Return the point closest to `target` in alpha and ddpm_ratio whose identity is not in `tried`.

        Raises:
            InputError: all points of the grid have been tried.
        """
        untried = [point for point in self._grid(target) if self.identity(point) not in tried]
        if not untried:
            raise InputError(
                f"all points at {dict(target)} have been tried; lower n_trials, or add parameters with also"
            )
        return min(
            untried, key=lambda point: sum((point[name] - target[name]) ** 2 for name in ("alpha", "ddpm_ratio"))
        )

    def _grid(self, others: Mapping[str, float]) -> Iterator[Point]:
        axes = [_steps(self.distributions[name]) for name in ("alpha", "ddpm_ratio")]
        for alpha, ratio in product(*axes):
            yield {**others, "alpha": alpha, "ddpm_ratio": ratio}


def build_space(
    *, alpha: float, alpha_step: float, n_aug: int, guidance: float, lr: float, also: Iterable[Extra] = ()
) -> Space:
    """Return the space around the given values; the first trial uses these values, rounded to the grid.

    Args:
        alpha: 0..1.
        alpha_step: step of the grid; divides 1.
        n_aug: 2 or more; if searched, .5, 1, 1.5 and 2 times this value.
        guidance: if searched, within `GUIDANCE`.
        lr: if searched, from a tenth to ten times this value on a logarithmic scale, at most 10.
        also: parameters searched besides alpha and ddpm_ratio.
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
