"""Configuration of `search`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from inandout.classifier.config import DetectorConfig, FitConfig
from inandout.data.config import DataConfig, Geometry, Seed, ShotConfig
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.sample.presets import DrawingPreset, drawing_preset
from inandout.hardware import HardwareConfig
from inandout.options import StageConfig, known
from inandout.parallel import ParallelConfig
from inandout.search.config import Extra, Point, check_url
from inandout.stages.classify.config import ClassifyConfig, MixConfig, ValFpr
from inandout.stages.classify.number_lists import Seeds
from inandout.stages.pools.config import DdpmPoolConfig, DrawingConfig

ValidationPositives = Literal["real", "synthetic"]
EXTRAS: tuple[Extra, ...] = ("n_aug", "guidance", "lr")


def _extras(text: str) -> str:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not set(names) <= set(EXTRAS) or len(set(names)) < len(names):
        raise ValueError(f"{text!r} is not a comma-separated subset of {', '.join(EXTRAS)} without duplicates")
    return ",".join(names)


class SearchConfig(StageConfig):
    """Options of a study.

    `seed` splits the data and draws every image; `seeds` repeat the training only. A study therefore fine-tunes once
    and draws one pool for each alpha.
    """

    engine: ParallelConfig = ParallelConfig()
    data: DataConfig = DataConfig()
    scenario: ShotConfig = ShotConfig()
    geometry: Geometry = Geometry()
    base: BaseConfig = BaseConfig()
    fit: FitConfig = FitConfig()
    mix: MixConfig = MixConfig()
    backbone: DetectorConfig = DetectorConfig()
    hardware: HardwareConfig = HardwareConfig()
    val_fpr: ValFpr = 0.05
    seed: Seed = 0
    n_trials: int = Field(20, ge=1, le=10_000, description="total number of trials, including those before a resume")
    seeds: Seeds = Field("0,1", description="training seeds of each trial; the objective is their mean")
    fresh_seeds: Seeds = Field(
        "100,101,102",
        description="training seeds of the final comparison of the best three points and the default",
    )
    also: Annotated[str, AfterValidator(_extras)] = Field(
        "", description="further searched options, separated by commas: some of n_aug, guidance, lr"
    )
    alpha_step: float = Field(
        0.1, ge=0.05, le=0.1, description="grid step of alpha, .05 or .1; trials with equal alpha share a pool"
    )
    objective: ValidationPositives | None = Field(
        None,
        description="validation positives: real, or synthetic (held out, half MemSeg, half diffusion); none = "
        "real with shot=full, else synthetic",
    )
    n_held_out: int = Field(40, ge=2, le=100_000, description="number of held-out positives for objective=synthetic")
    held_out_alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="alpha of held-out positives, equal in all trials; none = default of base and shot",
    )
    storage: Annotated[str, AfterValidator(check_url)] = Field(
        "",
        description="storage of the study: empty = a file beside the database, for processes on one machine; "
        "postgresql+psycopg://user@host/database for several machines",
    )

    @field_validator("alpha_step")
    @classmethod
    def _is_step(cls, step: float) -> float:
        if step not in (0.05, 0.1):
            raise ValueError("must be .05 or .1")
        return step

    @model_validator(mode="after")
    def _can_be_searched(self) -> "SearchConfig":
        if self.mix.n_aug < 2:
            raise ValueError(f"n_aug = {self.mix.n_aug}: must be 2 or more, because two sources are mixed")
        both = set(self.seeds.split(",")) & set(self.fresh_seeds.split(","))
        if both:
            raise ValueError(f"fresh_seeds = {self.fresh_seeds}: {min(both)} is also in seeds; give other seeds")
        if self.engine.cluster and not self.storage:
            raise ValueError(f"cluster = {self.engine.cluster}: a file cannot be locked across machines; give storage")
        return self

    def workers_alone(self) -> list["SearchConfig"]:
        """Return one single-worker copy for each worker; on a cluster one for each trial."""
        count = self.n_trials if self.engine.cluster else self.engine.workers
        return [self.model_copy(update={"engine": ParallelConfig()})] * count

    def default_alpha(self) -> float:
        """Return the default merging weight for base and shot: the paper's with Stable Diffusion."""
        return self.preset().whole.alpha

    def preset(self) -> DrawingPreset:
        """Return the defaults for base and shot."""
        return drawing_preset(self.base.kind(), self.scenario.shot, None)[1]

    def resolved(self) -> "SearchConfig":
        """Replace None in `objective` and `held_out_alpha` by the defaults for base and shot."""
        default: ValidationPositives = "real" if self.scenario.shot == "full" else "synthetic"
        alpha = self.default_alpha() if self.held_out_alpha is None else self.held_out_alpha
        return self.model_copy(update={"objective": self.objective or default, "held_out_alpha": alpha})

    def classifiers(self, point: Point, seeds: str) -> list[ClassifyConfig]:
        """Return one configuration per seed, at a point of the space."""
        shared = ClassifyConfig(
            data=self.data, scenario=self.scenario, geometry=self.geometry, base=self.base, fit=self.fit, mix=self.mix,
            backbone=self.backbone, hardware=self.hardware, val_fpr=self.val_fpr, seed=self.seed,
        ).with_options(**{name: int(value) if name == "n_aug" else value for name, value in point.items()})  # fmt: skip
        return [shared.model_copy(update={"training_seed": int(seed)}) for seed in seeds.split(",")]

    def default_point(self) -> Point:
        """Return the default point: default alpha, and ddpm_ratio 0.5 as in the paper."""
        return {"alpha": self.default_alpha(), "ddpm_ratio": 0.5}

    def default(self, seeds: str) -> list[ClassifyConfig]:
        """Return one configuration per seed, at the default point."""
        return self.classifiers(self.default_point(), seeds)

    def held_out(self) -> DdpmPoolConfig:
        """Return the configuration of held-out diffusion images; `self` is resolved."""
        return DdpmPoolConfig(
            data=self.data, scenario=self.scenario, geometry=self.geometry, base=self.base,
            drawing=DrawingConfig(alpha=known(self.held_out_alpha)), hardware=self.hardware,
            seed=self.seed, n_aug=self.n_held_out,
        )  # fmt: skip
