"""Configuration of `classify`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inandout.classifier.backbone import BackboneConfig
from inandout.classifier.training import FitConfig
from inandout.data.geometry import Geometry
from inandout.data.prepare import DataConfig, Seed, ShotConfig
from inandout.diffusion.base.base import BaseConfig, kind_of_base
from inandout.diffusion.finetune.presets import PRESETS
from inandout.diffusion.sample.sampler import SamplingConfig
from inandout.mixing import split_counts
from inandout.options import Fresh, StageConfig
from inandout.stages.pools.negatives import Negatives


class MixConfig(BaseModel):
    """Synthetic images added to the training part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_aug: int = Field(60, ge=0, le=100_000, description="synthetic positives added to the training part (paper: 120)")
    negatives: Negatives = Field(
        "none",
        description="as many synthetic negatives as diffusion images, so that the generator's fingerprint does not "
        "tell the label: none (paper); roundtrip = real good parts through the base's VAE; generated = drawn good "
        "parts; no effect without diffusion images",
    )


ValFpr = Annotated[
    float,
    Field(ge=0, lt=1, description="zero and few shot: share of validation negatives above the threshold"),
]


class ClassifyConfig(StageConfig):
    """Options of one classifier."""

    data: DataConfig = DataConfig()
    scenario: ShotConfig = ShotConfig()
    geometry: Geometry = Geometry()
    base: BaseConfig = BaseConfig()
    fit: FitConfig = FitConfig()
    mix: MixConfig = MixConfig()
    backbone: BackboneConfig = BackboneConfig()
    val_fpr: ValFpr = 0.05
    seed: Seed = 0
    training_seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="seed of weights and order of images, but not of split and pools; none = seed",
    )
    ddpm_ratio: float = Field(0.0, ge=0, le=1, description="share of n_aug made by diffusion: 0 = MemSeg, .5 = In&Out")
    diffusion: Literal["ddpm", "inpaint"] = Field(
        "ddpm", description="how diffusion makes its share: whole images, or defects drawn on good parts"
    )
    alpha: float | None = Field(
        None, ge=0, le=1, description="LoRA merging weight of the diffusion pool; none = by base, shot and diffusion"
    )
    guidance: float | None = Field(
        None, ge=1, le=50, description="weight of the prompt in the diffusion pool; none = by the base"
    )
    memseg_pool: str = Field("", description="folder or run id of a MemSeg pool; empty = as augment makes by default")
    ddpm_pool: str = Field("", description="folder or run id of a diffusion pool; empty = as augment makes by default")
    reviewed: bool = Field(
        False,
        description="take only images that reviewers kept from the pools that are given by ddpm_pool, memseg_pool",
    )
    fresh: Fresh = False

    @model_validator(mode="after")
    def _has_its_pool(self) -> "ClassifyConfig":
        if self.reviewed and not (self.ddpm_pool or self.memseg_pool):
            raise ValueError("reviewed = True is about given pools; give ddpm_pool or memseg_pool too")
        n_ddpm, n_memseg = self.shares()
        for name, taken in (("ddpm_pool", n_ddpm), ("memseg_pool", n_memseg)):
            if getattr(self, name) and not taken:
                raise ValueError(
                    f"{name} is given, but ddpm_ratio = {self.ddpm_ratio:g} and n_aug = {self.mix.n_aug} take nothing "
                    f"of it; give another ddpm_ratio, or no {name}"
                )
        return self

    def shares(self) -> tuple[int, int]:
        """Return the number of synthetic positives from (diffusion, MemSeg)."""
        return split_counts(self.mix.n_aug, self.ddpm_ratio)

    def resolved(self) -> "ClassifyConfig":
        """Return a copy with `alpha` and `guidance` resolved; both are None if no diffusion image is drawn."""
        if not self.shares()[0] or self.ddpm_pool:
            return self.model_copy(update={"alpha": None, "guidance": None})
        kind = kind_of_base(self.base.base)
        profile = PRESETS[kind, self.scenario.shot]
        suiting = profile.inpaint_alpha if self.diffusion == "inpaint" else profile.alpha
        guidance = SamplingConfig(guidance=self.guidance).resolved(kind).guidance
        alpha = suiting if self.alpha is None else self.alpha
        return self.model_copy(update={"alpha": alpha, "guidance": guidance})

    def own_seed(self) -> int:
        """Return `training_seed`, or `seed` if it is None."""
        return self.seed if self.training_seed is None else self.training_seed
