"""Configuration of `experiment`: a table or figure of the paper, or our comparison, at one of three sizes."""

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from inandout.classifier.backbone import Backbone, Freeze
from inandout.classifier.training import Optimiser
from inandout.data.splits import Shot
from inandout.errors import InputError
from inandout.options import StageConfig
from inandout.parallel import ParallelConfig
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.number_lists import NAugs, Seeds
from inandout.stages.experiment.cells import SHOTS, SOURCES, Cell, build_cells
from inandout.stages.pools.negatives import Negatives

Name = Literal[
    "table1", "table2", "table3", "table4", "table5", "table6",
    "figure1", "figure2", "figure4", "figure5", "figure6", "figure7", "comparison",
]  # fmt: skip
"""Tables and figures of the paper (except Figure 3, a diagram), and the comparison of all shots and sources."""

Profile = Literal["paper", "tiles", "embedded"]


class Grid(NamedTuple):
    """Cells of an experiment and the kind of its result."""

    shots: tuple[Shot, ...]
    sources: tuple[str, ...]
    """Keys of `SOURCES`."""
    shows: Literal["metrics", "features", "images"] = "metrics"
    """Features and images use one seed and the largest n_aug; images need no classifier."""


GRIDS: dict[str, Grid] = {
    "table1": Grid(("zero",), ("memseg", "ddpm")),
    "table2": Grid(("zero",), ("inout",)),
    "table3": Grid(("few",), ("memseg", "ddpm")),
    "table4": Grid(("few",), ("inout",)),
    "table5": Grid(("full",), ("none", "inout")),
    "table6": Grid(("full",), ("memseg", "ddpm")),
    "figure1": Grid(("full",), ("inout",), "features"),
    "figure2": Grid(("zero",), ("memseg",), "images"),
    "figure4": Grid(("full",), ("none",), "images"),
    "figure5": Grid(("zero",), ("ddpm",), "images"),
    "figure6": Grid(("zero",), ("memseg", "ddpm", "inout")),
    "figure7": Grid(("zero",), ("memseg", "ddpm", "inout")),
    "comparison": Grid(SHOTS, tuple(SOURCES)),
}

SIZES: dict[str, dict[str, Any]] = {
    "paper": {
        "data": "data/ksdd2/KolektorSDD2", "width": 200, "height": 600, "weights": "imagenet", "optimiser": "sgd",
        "lr": 0.01, "epochs": 50, "batch_size": 5, "n_augs": "80,100,120", "seeds": "0,1,2,3",
    },
    "tiles": {
        "width": 64, "height": 64, "fit": "stretch", "epochs": 12, "n_augs": "100", "seeds": "0,1,2,3",
    },
    "embedded": {"epochs": 6, "n_augs": "40,60", "seeds": "0,1"},
}  # fmt: skip
"""Profile to options that differ from the defaults of `ClassifyConfig`: the paper's setup for a GPU; real magnetic
tiles and embedded surfaces for two cores."""
_REQUIRED = {"paper": ("base",), "tiles": ("data",), "embedded": ()}
"""Profile to options without a value in `SIZES`."""


class SettingsConfig(BaseModel):
    """Options that all cells share; None = value of the profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = Field(None, min_length=1, description="dataset; required with profile=tiles")
    base: str | None = Field(None, min_length=1, description="base, pinned by revision; required with profile=paper")
    base_config: str | None = Field(None, description="configuration of a single-file base")
    width: int | None = Field(None, ge=32, le=4096, description="image width in px")
    height: int | None = Field(None, ge=32, le=4096, description="image height in px")
    backbone: Backbone | None = Field(None, description="torchvision network")
    weights: str | None = Field(
        None, min_length=1, description="initial weights: none, imagenet, or a .safetensors file"
    )
    freeze: Freeze | None = Field(None, description="what training does not change: none, norm or all")
    epochs: int | None = Field(None, ge=1, le=10_000, description="passes over the positives")
    batch_size: int | None = Field(None, ge=2, le=4096, description="images per step")
    optimiser: Optimiser | None = Field(None, description="optimiser: sgd or adamw")
    lr: float | None = Field(None, gt=0, le=10, description="learning rate")
    negatives: Negatives | None = Field(None, description="synthetic negatives, as in classify")
    n_augs: NAugs | None = Field(None, description="numbers of synthetic positives, separated by commas")
    seeds: Seeds | None = Field(None, description="seeds of repetitions, separated by commas")


class ExperimentConfig(StageConfig):
    """Options of an experiment."""

    engine: ParallelConfig = ParallelConfig()
    name: Name = Field("comparison", description="table or figure of the paper; comparison = all shots and sources")
    profile: Profile = Field(
        "embedded",
        description="paper: KolektorSDD2 and Stable Diffusion; tiles: magnetic tiles; embedded: embedded surfaces",
    )
    given: SettingsConfig = SettingsConfig()
    gpu_tflops: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="dry run: also estimate the time on a GPU with this peak at 30 % utilisation",
    )

    def settings(self) -> dict[str, Any]:
        """Return the options that all cells share, with `n_augs` and `seeds`.

        Raises:
            InputError: an option that the profile requires is not given.
        """
        given = self.given.model_dump(exclude_none=True)
        for name in _REQUIRED[self.profile]:
            if name not in given:
                raise InputError(f"profile = {self.profile}: requires option {name}; give {name}")
        return SIZES[self.profile] | given

    def cells(self) -> list[Cell]:
        """Return all cells of the experiment; raises as `settings`."""
        grid, shared = GRIDS[self.name], self.settings()
        n_augs = [int(number) for number in shared.pop("n_augs").split(",")]
        seeds = [int(seed) for seed in shared.pop("seeds").split(",")]
        if grid.shows != "metrics":
            n_augs, seeds = [max(n_augs)], seeds[:1]
        return list(build_cells(grid.shots, grid.sources, n_augs, seeds, ClassifyConfig.from_flat(**shared)))
