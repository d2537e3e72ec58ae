"""Configurations of `classify`, `nearest` and `label-errors`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inandout.classifier.config import PATCHES, BackboneConfig, DetectorConfig, FitConfig, NetworkConfig
from inandout.data.config import DataConfig, Geometry, Seed, ShotConfig, Window
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.sample.config import GuidanceMode, SamplingConfig
from inandout.diffusion.sample.presets import drawing_preset
from inandout.errors import InputError
from inandout.hardware import Device, HardwareConfig
from inandout.memseg.config import MaskConfig
from inandout.mixing import split_counts
from inandout.options import Fresh, StageConfig
from inandout.stages.pools.config import DdpmPoolConfig, DrawingConfig, Negatives, diag, inpainting


class MixConfig(BaseModel):
    """Synthetic images added to the training part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_aug: int = Field(60, ge=0, le=100_000, description="synthetic positives added to the training part (paper: 120)")
    negatives: Negatives = Field(
        "none",
        description="one synthetic negative for each diffusion image, so that generator artifacts do not reveal the "
        "label: none (paper); roundtrip = real good parts through the VAE of the base; generated = good parts drawn by "
        "diffusion; no effect without diffusion images",
    )
    window: Window = None


ValFpr = Annotated[
    float,
    Field(ge=0, lt=1, description="zero and few shot: share of the validation negatives that lie above the threshold"),
]


class ClassifyConfig(StageConfig):
    """Options of one classifier."""

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
    training_seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="seed of the weights and of the order of images; split and pools use seed; none = seed",
    )
    ddpm_ratio: float = Field(0.0, ge=0, le=1, description="share of n_aug from diffusion: 0 = MemSeg, .5 = In&Out")
    diffusion: Literal["ddpm", "inpaint", "diag"] = Field(
        "ddpm",
        description="ddpm: whole images; inpaint: defects inpainted on good parts; diag: the same without an adapter, "
        "with the published settings of DIAG, which use the masks of all real defects",
    )
    alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="LoRA merging weight of the diffusion pool; none = default for base, shot and diffusion",
    )
    guidance_mode: GuidanceMode | None = Field(
        None, description="guidance of the diffusion pool, plain (paper) or composed; none = default for the base"
    )
    guidance: float | None = Field(
        None, ge=1, le=50, description="guidance scale of the diffusion pool; none = default for the base"
    )
    memseg_pool: str = Field(
        "", description="folder or run id of a MemSeg pool; empty = generate it with the defaults of augment"
    )
    ddpm_pool: str = Field(
        "", description="folder or run id of a diffusion pool; empty = generate it with the defaults of augment"
    )
    start: str = Field(
        "",
        description="run id of a classify run whose whole network, last layer included, is trained further, "
        "instead of weights",
    )
    reviewed: bool = Field(
        False,
        description="from ddpm_pool and memseg_pool, use only images that reviewers kept",
    )
    fresh: Fresh = False

    @model_validator(mode="after")
    def _check_pools(self) -> "ClassifyConfig":
        if self.reviewed and not (self.ddpm_pool or self.memseg_pool):
            raise ValueError("reviewed = True needs ddpm_pool or memseg_pool; give one of them, or reviewed=false")
        n_ddpm, n_memseg = self.shares()
        for name, count in (("ddpm_pool", n_ddpm), ("memseg_pool", n_memseg)):
            if getattr(self, name) and not count:
                raise ValueError(
                    f"{name} is set, but ddpm_ratio = {self.ddpm_ratio:g} and n_aug = {self.mix.n_aug} use no image "
                    f"of it; change ddpm_ratio, or remove {name}"
                )
        return self

    def shares(self) -> tuple[int, int]:
        """Return the number of synthetic positives from (diffusion, MemSeg)."""
        return split_counts(self.mix.n_aug, self.ddpm_ratio)

    def resolved(self) -> "ClassifyConfig":
        """Resolve `alpha`, `guidance_mode` and `guidance`; they are None if no diffusion image depends on them.

        Raises:
            InputError: images of DIAG are to be drawn, and real images are cropped.
        """
        if self.diffusion == "diag" and self.shares()[0] and not self.ddpm_pool and self.geometry.fit != "stretch":
            raise InputError(
                f"diffusion = diag: its images are whole images stretched to a square, but fit = {self.geometry.fit} "
                "cuts real images before they are resized; give fit=stretch (in an experiment: profile=diag)"
            )
        if not self.shares()[0] or self.ddpm_pool or self.diffusion == "diag":
            return self.model_copy(update={"alpha": None, "guidance_mode": None, "guidance": None})
        mode, preset = drawing_preset(self.base.kind(), self.scenario.shot, self.guidance_mode)
        strength = preset.inpaint if self.diffusion == "inpaint" else preset.whole
        alpha = strength.alpha if self.alpha is None else self.alpha
        guidance = strength.guidance if self.guidance is None else self.guidance
        return self.model_copy(update={"alpha": alpha, "guidance_mode": mode, "guidance": guidance})

    def diffusion_pool(self, n: int) -> DdpmPoolConfig:
        """Return the configuration of `n` diffusion images, with the defaults of `augment`."""
        pool = DdpmPoolConfig(
            data=self.data, scenario=self.scenario, geometry=self.geometry, base=self.base,
            sampling=SamplingConfig(guidance=self.guidance),
            drawing=DrawingConfig(alpha=self.alpha, guidance_mode=self.guidance_mode), hardware=self.hardware,
            seed=self.seed, n_aug=n,
        )  # fmt: skip
        if self.diffusion == "diag":
            return diag(pool)
        return inpainting(pool, MaskConfig(), None, self.mix.window) if self.diffusion == "inpaint" else pool

    def summary(self) -> list[str]:
        """Return what is trained on which images."""
        size, fit = self.geometry, self.fit
        n_ddpm, n_memseg = self.shares()
        positives = [f"{n_memseg} MemSeg" + f" of pool {self.memseg_pool}" * bool(self.memseg_pool)] if n_memseg else []
        if n_ddpm and self.ddpm_pool:
            positives.append(f"{n_ddpm} of pool {self.ddpm_pool}")
        elif n_ddpm:
            alpha = "" if self.alpha is None else f", alpha {self.alpha:g}"
            positives.append(f"{n_ddpm} {self.diffusion} (base {self.base.base}{alpha})")
        origin = f"run {self.start}" if self.start else f"weights={self.backbone.weights}"
        return [
            f"data: {self.data.name()}, {size.width}x{size.height}, shot={self.scenario.describe()}, "
            f"seed={self.describe_seed()}",
            f"synthetic positives: {', '.join(positives) or 'none'}; missing pools and adapters are made first",
            f"classify: {self.backbone.backbone} from {origin}, head={self.backbone.head}, tile={self.backbone.tile}, "
            f"{'distances to good parts, ' * self.backbone.distances}"
            f"{fit.epochs} epochs in batches of {fit.batch_size}",
        ]

    def describe_seed(self) -> str:
        """Return "0", or "0, training seed 3" if `training_seed` is given."""
        return str(self.seed) if self.training_seed is None else f"{self.seed}, training seed {self.training_seed}"

    def own_seed(self) -> int:
        """Return `training_seed`, or `seed` if it is None."""
        return self.seed if self.training_seed is None else self.training_seed


class NearestConfig(StageConfig):
    """Options of the nearest-neighbour baseline."""

    data: DataConfig = DataConfig()
    geometry: Geometry = Geometry()
    network: NetworkConfig = NetworkConfig()
    device: Device = "auto"
    val_fpr: ValFpr = 0.05
    seed: Seed = 0
    patches: int = Field(
        PATCHES, ge=1, le=100_000, description="maximum number of patches of good parts to compare with"
    )
    fresh: Fresh = False


class LabelErrorsConfig(StageConfig):
    """Options of `label-errors`."""

    data: DataConfig = DataConfig()
    geometry: Geometry = Geometry()
    fit: FitConfig = FitConfig()
    backbone: BackboneConfig = BackboneConfig()
    hardware: HardwareConfig = HardwareConfig()
    seed: Seed = 0
    folds: int = Field(5, ge=2, le=50, description="cross-validation folds; one classifier is trained per fold")
    fresh: Fresh = False
