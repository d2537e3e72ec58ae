"""Configurations of `main`, `report` and `experiment`.

An experiment is a table or figure of the paper, or our comparison, with the options of a profile.
"""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from inandout.classifier.config import Backbone, DetectorConfig, FitConfig, Freeze, Head, Optimiser, Tile
from inandout.data.config import DataConfig, EachKind, Geometry, NShot, Shot, ShotConfig, Window
from inandout.diffusion.base.config import BaseConfig
from inandout.errors import InputError, did_you_mean
from inandout.hardware import AnyPrecision, Device, HardwareConfig
from inandout.options import Fresh, StageConfig
from inandout.parallel import ParallelConfig
from inandout.stages.classify.config import ClassifyConfig, MixConfig, ValFpr
from inandout.stages.classify.number_lists import NAugs, NShots, Seeds, without_repeats
from inandout.stages.experiment.grid import SHOTS, SOURCES, SYNTHESES, Cell, Repeated, build_cells, parse_pools
from inandout.stages.pools.config import Negatives

Name = Literal[
    "table1", "table2", "table3", "table4", "table5", "table6",
    "figure1", "figure2", "figure4", "figure5", "figure6", "figure7", "comparison", "anchors", "diag",
]  # fmt: skip
"""Tables and figures of the paper (except Figure 3, a diagram), the comparison of all shots and sources, the same with
all controls (anchors), and the table of DIAG (Girella 2024)."""

Profile = Literal["paper", "tiles", "embedded", "magnetic_tile", "solar_cells", "kolektor_sdd", "diag"]


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
    "comparison": Grid(SHOTS, SYNTHESES),
    "anchors": Grid(SHOTS, ("nearest", "none", "none-steps", *SYNTHESES[1:], "two-stage")),
    "diag": Grid(("zero", "full"), ("diag",)),
}

_IMAGENET = {
    "fit": "stretch", "backbone": "mobilenet_v2", "batch_size": 16, "n_augs": "100", "seeds": "0,1,2,3",
    "window": 64, "folds": 5,
}  # fmt: skip
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {
        "data": "data/ksdd2/KolektorSDD2", "width": 200, "height": 600, "weights": "imagenet", "optimiser": "sgd",
        "lr": 0.01, "epochs": 50, "batch_size": 5, "n_augs": "80,100,120", "seeds": "0,1,2,3",
    },
    "tiles": {
        "width": 64, "height": 64, "fit": "stretch", "epochs": 12, "n_augs": "100", "seeds": "0,1,2,3",
    },
    "embedded": {"epochs": 6, "n_augs": "40,60", "seeds": "0,1"},
    "magnetic_tile": _IMAGENET | {
        "width": 160, "height": 160, "freeze": "all", "lr": 0.03, "epochs": 50, "curve": "1,2,5,10,20,50,100",
    },
    "solar_cells": _IMAGENET | {
        "width": 160, "height": 160, "freeze": "norm", "lr": 0.00002, "epochs": 8, "curve": "1,2,5,10,20,50,100",
    },
    "kolektor_sdd": _IMAGENET | {
        "width": 256, "height": 640, "tile": 64, "freeze": "all", "lr": 0.03, "epochs": 50, "curve": "1,2,5,10,20",
    },
    "diag": {
        "data": "data/ksdd2/KolektorSDD2", "width": 256, "height": 704, "fit": "stretch", "weights": "imagenet",
        "optimiser": "adamw", "lr": 0.0001, "epochs": 276, "batch_size": 32, "n_augs": "80,100,120", "seeds": "0,1,2,3",
    },
}  # fmt: skip
"""Profile to options that differ from the defaults of `ClassifyConfig`: the paper's setup for a GPU; real magnetic
tiles at 64x64 and embedded surfaces for two cores; three real datasets with a network that has seen photographs; and
DIAG's setup (`train_ResNet50.py` of its authors), with AdamW for Adam, and with as many images as its 30 passes over
all negatives and 120 defects, but drawn by frequency of use. The recipes of the three real datasets, except for `tile`
(experiments/large_images.md), were chosen on validation parts for the source none (experiments/recipes.md)."""
_REAL = ("data", "weights")
_REQUIRED: dict[str, tuple[str, ...]] = {
    "paper": ("base",), "tiles": ("data",), "embedded": (), "magnetic_tile": _REAL, "solar_cells": _REAL,
    "kolektor_sdd": _REAL, "diag": ("base",),
}  # fmt: skip
"""Profile to options without a value in `PROFILES`."""


def _pools(text: str) -> str:
    parse_pools(text)
    return text


Pools = Annotated[str, AfterValidator(_pools)]


def _not_one(folds: int) -> int:
    if folds == 1:
        raise ValueError("one fold has no training part; give 0, or 2 to 50")
    return folds


Folds = Annotated[int, AfterValidator(_not_one), Field(ge=0, le=50)]
ExpectedAp = Annotated[
    float, Field(gt=0, lt=1, description="dry run: AP at which the detectable difference is computed")
]
_POOL = "existing pools as further sources, NAME=FOLDER separated by commas; a folder of images will do"
_FOLDS = "test every part once, in cross-validation by whole groups; 0 = the split of the dataset"
_REPEAT = (
    "what each further seed repeats: all (split, choice of real defects, pools, training), or the training alone, with "
    "the images of the first seed"
)
_CURVE = "numbers of real positives of a learning curve, such as 1,2,5,10, to say how many each source is worth"


class SettingsConfig(BaseModel):
    """Options that all cells share; None = value of the profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = Field(None, min_length=1, description="dataset; required with profiles of real data")
    base: str | None = Field(
        None, min_length=1, description="base, pinned by revision; required with profile=paper and diag"
    )
    base_config: str | None = Field(None, description="configuration of a single-file base")
    width: int | None = Field(None, ge=32, le=4096, description="image width in px")
    height: int | None = Field(None, ge=32, le=4096, description="image height in px")
    backbone: Backbone | None = Field(None, description="torchvision network")
    weights: str | None = Field(
        None, min_length=1, description="initial weights: none, imagenet, or a .safetensors file"
    )
    freeze: Freeze | None = Field(None, description="what training does not change: none, norm or all")
    head: Head | None = Field(None, description="what the classifier learns: image or mask")
    tile: Tile | None = Field(None, description="side in px of overlapping tiles; 0 = the whole image")
    distances: bool | None = Field(
        None, description="add the distance to good training parts to the score; needs freeze=all"
    )
    epochs: int | None = Field(None, ge=1, le=10_000, description="passes over the positives")
    batch_size: int | None = Field(None, ge=2, le=4096, description="images per step")
    optimiser: Optimiser | None = Field(None, description="optimiser: sgd or adamw")
    lr: float | None = Field(None, gt=0, le=10, description="learning rate")
    device: Device | None = Field(None, description="device: auto, cpu, cuda, cuda:N or mps")
    precision: AnyPrecision | None = Field(None, description="precision: auto, fp32, bf16 or fp16")
    negatives: Negatives | None = Field(None, description="synthetic negatives, as in classify")
    window: Window = None
    n_augs: NAugs | None = Field(None, description="numbers of synthetic positives, separated by commas")
    seeds: Seeds | None = Field(None, description="seeds of repetitions, separated by commas")
    repeat: Repeated | None = Field(None, description=_REPEAT)
    n_shot: NShot | None = Field(None, description="number of real positives for shot=few")
    each_kind: bool | None = Field(None, description="shot=few: n_shot of each kind of defect instead of in all")
    pool: Pools | None = Field(None, description=_POOL)
    folds: Folds | None = Field(None, description=_FOLDS)
    curve: NShots | None = Field(None, description=_CURVE)


class ExperimentConfig(StageConfig):
    """Options of an experiment."""

    engine: ParallelConfig = ParallelConfig()
    name: Name = Field(
        "comparison",
        description="table or figure of the paper; comparison = all shots and sources; anchors = with controls; "
        "diag = table of DIAG",
    )
    profile: Profile = Field(
        "embedded",
        description="paper: KolektorSDD2 and Stable Diffusion; tiles: magnetic tiles at 64x64; embedded: embedded "
        "surfaces; magnetic_tile, solar_cells, kolektor_sdd: real data with MobileNetV2 and given weights; diag: "
        "KolektorSDD2 and SDXL inpainting with DIAG's settings",
    )
    given: SettingsConfig = SettingsConfig()
    gpu_tflops: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="dry run: also estimate the time on a GPU with this peak at 30 % utilisation",
    )

    expected_ap: ExpectedAp = 0.7

    def settings(self) -> dict[str, Any]:
        """Return the options that all cells share, with `n_augs` and `seeds`.

        Raises:
            InputError: an option that the profile requires is not given, or distances need another one.
        """
        given = self.given.model_dump(exclude_none=True)
        for name in _REQUIRED[self.profile]:
            if name not in given:
                raise InputError(f"profile = {self.profile}: requires option {name}; give {name}")
        settings = PROFILES[self.profile] | given
        if settings.get("distances") and settings.get("freeze") != "all":
            raise InputError(f"distances = True: profile = {self.profile} trains the backbone; give freeze=all")
        return settings

    def cells(self) -> list[Cell]:
        """Return all cells of the experiment; raises as `settings`."""
        grid, shared = GRIDS[self.name], self.settings()
        n_augs = [int(number) for number in shared.pop("n_augs").split(",")]
        seeds = [int(seed) for seed in shared.pop("seeds").split(",")]
        pools, folds = parse_pools(shared.pop("pool", "")), shared.pop("folds", 0)
        curve = [int(number) for number in shared.pop("curve", "").split(",") if number]
        repeat = shared.pop("repeat", "all")
        if grid.shows != "metrics":
            n_augs, seeds, pools, folds, curve = [max(n_augs)], seeds[:1], {}, 0, []
        return list(
            build_cells(
                grid.shots, grid.sources, n_augs, seeds, ClassifyConfig.from_flat(**shared), pools=pools, folds=folds,
                curve=curve, repeat=repeat,
            )
        )  # fmt: skip


def _shots(text: str) -> str:
    return _some_of(SHOTS, text, "shot")


def _sources(text: str) -> str:
    return _some_of(tuple(SOURCES), text, "source")


def _some_of(allowed: tuple[str, ...], text: str, what: str) -> str:
    names = [part.strip() for part in text.split(",")]
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is not a {what}; give a comma-separated subset of {', '.join(allowed)}"
            f"{did_you_mean(unknown[0], allowed)}"
        )
    return without_repeats(names)


class CompareConfig(StageConfig):
    """Options of a comparison."""

    engine: ParallelConfig = ParallelConfig()
    data: DataConfig = DataConfig()
    geometry: Geometry = Geometry()
    base: BaseConfig = BaseConfig()
    fit: FitConfig = FitConfig()
    mix: MixConfig = MixConfig()
    backbone: DetectorConfig = DetectorConfig()
    hardware: HardwareConfig = HardwareConfig()
    val_fpr: ValFpr = 0.05
    shots: Annotated[str, AfterValidator(_shots)] = Field("zero,full", description="scenarios, separated by commas")
    sources: Annotated[str, AfterValidator(_sources)] = Field(
        "none,memseg",
        description="sources of synthetic positives: some of none, memseg, ddpm, inout (half of each), inpaint, "
        "inout-inpaint (half MemSeg, half inpaint), two-stage (MemSeg, then ddpm), diag, and the controls none-steps "
        "(none, as many steps) and nearest (distance to good parts)",
    )
    pool: Pools = Field("", description=_POOL)
    folds: Folds = Field(0, description=_FOLDS)
    curve: NShots = Field("", description=_CURVE)
    expected_ap: ExpectedAp = 0.7
    seeds: Seeds = Field("0", description="seeds of repetitions, separated by commas")
    repeat: Repeated = Field("all", description=_REPEAT)
    n_shot: NShot = 5
    each_kind: EachKind = False
    fresh: Fresh = False

    @model_validator(mode="after")
    def _one_way_to_choose_folds(self) -> "CompareConfig":
        if self.folds and self.data.fold:
            raise ValueError(f"folds = {self.folds} tests on every fold; remove fold = {self.data.fold}, or folds")
        return self

    def cells(self) -> list[Cell]:
        """Return all cells of the comparison."""
        shared = ClassifyConfig(
            data=self.data, scenario=ShotConfig(n_shot=self.n_shot, each_kind=self.each_kind),
            geometry=self.geometry, base=self.base, fit=self.fit, mix=self.mix, backbone=self.backbone,
            hardware=self.hardware, val_fpr=self.val_fpr, fresh=self.fresh,
        )  # fmt: skip
        shots = [shot for shot in SHOTS if shot in self.shots.split(",")]
        seeds = [int(seed) for seed in self.seeds.split(",")]
        return list(
            build_cells(
                shots, self.sources.split(","), [self.mix.n_aug], seeds, shared,
                pools=parse_pools(self.pool), folds=self.folds,
                curve=[int(number) for number in self.curve.split(",") if number], repeat=self.repeat,
            )
        )  # fmt: skip


class ReportConfig(StageConfig):
    """Options of `report`."""

    name: Name = Field(
        "comparison", description="name of the experiment; the newest run of this name and profile is reported"
    )
    profile: Profile = Field("embedded", description="profile of the experiment")
    run: str = Field(
        "", description="run id of experiment or main, instead of name and profile; the run may be unfinished"
    )
