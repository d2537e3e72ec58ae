"""What a classifier is asked for: how it is trained, on what, and where its synthetic images come from."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inandout.classifier.training import Optimiser
from inandout.data.geometry import Geometry
from inandout.data.prepare import ShotConfig, SourceConfig
from inandout.diffusion.base.base import BaseConfig
from inandout.mixing import split_counts
from inandout.stages.pools.negatives import Negatives


class FitConfig(BaseModel):
    """How a classifier is trained. The defaults are the embedded profile, which two CPU cores train in minutes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = Field("none", min_length=1, description="start: none, imagenet, or a .safetensors file")
    epochs: int = Field(10, ge=1, le=10_000, description="passes over the positives (paper: 50)")
    batch_size: int = Field(8, ge=2, le=4096, description="images a step (paper: 5)")
    optimiser: Optimiser = Field("adamw", description="sgd (paper) needs pretrained weights; adamw does not")
    lr: float = Field(0.001, gt=0, le=10, description="learning rate (paper: .01)")


class TrainingConfig(SourceConfig, Geometry, FitConfig):
    """What a classifier is trained and measured on."""

    n_aug: int = Field(60, ge=0, le=100_000, description="synthetic positives added to the training part (paper: 120)")
    val_fpr: float = Field(
        0.05, ge=0, lt=1, description="zero and few shot: share of validation negatives above the threshold"
    )
    negatives: Negatives = Field(
        "none",
        description="as many synthetic negatives as diffusion images, so that the generator's fingerprint does not "
        "tell the label: none (paper); roundtrip = real good parts through the base's VAE; generated = drawn good "
        "parts; no effect without diffusion images",
    )


class ClassifyConfig(TrainingConfig, ShotConfig, BaseConfig):
    """One classifier."""

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
    fresh: bool = Field(False, description="run again although a finished run has the same fingerprint")

    @model_validator(mode="after")
    def _has_its_pool(self) -> "ClassifyConfig":
        if self.reviewed and not (self.ddpm_pool or self.memseg_pool):
            raise ValueError("reviewed = True is about given pools; give ddpm_pool or memseg_pool too")
        n_ddpm, n_memseg = split_counts(self.n_aug, self.ddpm_ratio)
        for name, taken in (("ddpm_pool", n_ddpm), ("memseg_pool", n_memseg)):
            if getattr(self, name) and not taken:
                raise ValueError(
                    f"{name} is given, but ddpm_ratio = {self.ddpm_ratio:g} and n_aug = {self.n_aug} take nothing of "
                    f"it; give another ddpm_ratio, or no {name}"
                )
        return self

    def own_seed(self) -> int:
        """The resolved `training_seed`."""
        return self.seed if self.training_seed is None else self.training_seed
