"""Cells of a comparison: classifiers that differ in shot, source of synthetic positives, `n_aug` and seed."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal, NamedTuple

from inandout.data.config import Shot
from inandout.stages.classify.config import ClassifyConfig

SHOTS: tuple[Shot, ...] = ("zero", "few", "full")
ROWS = "rows.json"
"""Artifact of a comparison: finished cells, in the format of `inandout.reporting.tables.pack`."""


class Source(NamedTuple):
    """A source of synthetic positives."""

    title: str
    """Name in tables."""
    ddpm_ratio: float
    diffusion: Literal["ddpm", "inpaint", "diag"] = "ddpm"


SOURCES = {
    "none": Source("none", 0.0),
    "memseg": Source("MemSeg", 0.0),
    "ddpm": Source("DDPM", 1.0),
    "inout": Source("In&Out", 0.5),
    "inpaint": Source("inpainting", 1.0, "inpaint"),
    "inout-inpaint": Source("In&Out, inpainting", 0.5, "inpaint"),
    "diag": Source("DIAG", 1.0, "diag"),
}


class Cell(NamedTuple):
    """A classifier and the table name of its source of synthetic positives."""

    source: str
    config: ClassifyConfig

    def name(self) -> str:
        """Return the name of the cell in progress messages."""
        shot, n_aug = self.config.scenario.shot, self.config.mix.n_aug
        return f"shot={shot} source={self.source} n_aug={n_aug} seed={self.config.seed}"


def build_cells(
    shots: Sequence[Shot],
    sources: Sequence[str],
    n_augs: Sequence[int],
    seeds: Sequence[int],
    shared: ClassifyConfig,
) -> Iterator[Cell]:
    """Yield every valid combination.

    Zero shots without synthetic positives leave nothing to train on, and only the source `none` has n_aug = 0.

    Args:
        shots: items of `SHOTS`.
        sources: keys of `SOURCES`.
        n_augs: numbers of synthetic positives.
        seeds: repetitions; a seed determines everything from the validation split to the order of images.
        shared: all other options.
    """
    for shot, name in product(shots, sources):
        title, ratio, diffusion = SOURCES[name]
        for n_aug in [0] if name == "none" else n_augs:
            if n_aug == 0 and (shot == "zero" or name != "none"):
                continue
            for seed in seeds:
                varied = shared.with_options(
                    shot=shot, n_aug=n_aug, ddpm_ratio=ratio, diffusion=diffusion, seed=seed
                )  # fmt: skip
                yield Cell(title, varied.resolved())
