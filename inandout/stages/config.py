"""Configurations of `check`, `surfaces`, `download`, `finetune`, `convert` and `pretrain`."""

from typing import Literal

from pydantic import Field, model_validator

from inandout.data.config import EMBEDDED, DataConfig, Geometry, Seed, ShotConfig, Size, SurfacesConfig, Window
from inandout.diffusion.base.config import TRAINED_SIZE, BaseConfig
from inandout.diffusion.finetune.config import DreamBoothConfig
from inandout.diffusion.finetune.presets import N_NEGATIVES, PRESETS
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.pretrain.config import HELD_OUT, TEXT_SHARE
from inandout.hardware import HardwareConfig
from inandout.options import Fresh, StageConfig


class CheckConfig(StageConfig):
    """Options of `check`."""

    geometry: Geometry = Geometry()
    data: str = Field(EMBEDDED, min_length=1, description="dataset, as in classify")
    write: str = Field("", description="CSV manifest to write, with all usable images; empty = none")


class MakeSurfacesConfig(StageConfig):
    """Options of `surfaces`."""

    surfaces: SurfacesConfig = SurfacesConfig()
    out: str = Field("data/surfaces", min_length=1, description="folder to write; must be empty or new")


class DownloadConfig(StageConfig):
    """Options of `download`."""

    out: str = Field("data/ksdd2", min_length=1, description="folder to write")


class AdapterSize(Size):
    """Size and fit of the training images."""

    fit: Literal["crop", "stretch", "bucket"] = Field(
        "crop",
        description="crop and stretch: as for the classifier; bucket: each image approximately keeps its aspect "
        "ratio and has an area of width x height (paper: 512 x 512)",
    )


def drawn_size(size: Size, window: Window, base: BaseConfig) -> Size:
    """Return the size of the images that a base learns or draws: `size`, or its own size for a window."""
    own = TRAINED_SIZE[base.kind()]
    return size if window is None else Size(width=own, height=own)


class FinetuneConfig(StageConfig):
    """Options of one adapter. None = default for base and shot (`inandout/diffusion/finetune/presets.py`)."""

    data: DataConfig = DataConfig()
    scenario: ShotConfig = ShotConfig()
    geometry: AdapterSize = AdapterSize()
    base: BaseConfig = BaseConfig()
    adapter: AdapterConfig = AdapterConfig()
    training: DreamBoothConfig = DreamBoothConfig()
    hardware: HardwareConfig = HardwareConfig()
    seed: Seed = 0
    epochs: int | None = Field(
        None, ge=1, le=100_000, description="passes over the images; none = default for base and shot"
    )
    lr: float | None = Field(None, gt=0, le=1, description="peak learning rate; none = default for base and shot")
    n_prior: int | None = Field(
        None, ge=0, le=100_000, description="images generated from the class prompt; none = default for base and shot"
    )
    n_negatives: int = Field(N_NEGATIVES, ge=1, le=100_000, description="zero shot: number of good images to train on")
    kind: str = Field(
        "", description="few and full shot: train on positives of this kind of defect only; empty = all kinds"
    )
    instance_prompt: str = Field("skt background", min_length=1, description="instance prompt: names the product")
    window: Window = None
    prior_prompt: str = Field("background", min_length=1, description="class prompt: names the class of the product")
    clip_skip: int = Field(
        1,
        ge=1,
        le=24,
        description="layer of the text encoder, counted from the last (paper's files: 2); 1 with SDXL",
    )
    fresh: Fresh = False

    @model_validator(mode="after")
    def _zero_shot_has_no_defects(self) -> "FinetuneConfig":
        if self.training.mask_weight > 1 and self.scenario.shot == "zero":
            raise ValueError(
                f"mask_weight = {self.training.mask_weight:g}: shot=zero trains on good parts only, which have no "
                "defects; give shot=few or shot=full, or mask_weight=1"
            )
        if self.kind and self.scenario.shot == "zero":
            raise ValueError(
                f"kind = {self.kind}: shot=zero trains on good parts only, which have no defects; give shot=few or "
                "shot=full, or leave kind out"
            )
        return self

    def resolved(self) -> "FinetuneConfig":
        """Replace None by the defaults for base and shot."""
        preset = PRESETS[self.base.kind(), self.scenario.shot]
        n_prior = preset.n_prior if self.n_prior is None else self.n_prior
        defaults = {
            "epochs": preset.epochs if self.epochs is None else self.epochs,
            "lr": preset.lr if self.lr is None else self.lr,
            "n_prior": n_prior if self.training.prior_weight else 0,
        }
        return self.model_copy(update=defaults)

    def summary(self) -> list[str]:
        """Return what is trained on which images."""
        size, shot = self.geometry, self.scenario.shot
        positives = "the training positives" + f" of kind {self.kind}" * bool(self.kind)
        images = f"up to {self.n_negatives} good images" if shot == "zero" else positives
        trained = TRAINED_SIZE[self.base.kind()]
        small = size.width * size.height < trained**2 / 4 and self.window is None
        return [
            f"data: {self.data.name()}, {size.width}x{size.height}, shot={self.scenario.describe()}, seed={self.seed}",
            f"finetune: base {self.base.base} on {images} as {self.instance_prompt!r}, {self.epochs} epochs of "
            f"{self.training.repeats} repeats in batches of {self.training.batch_size}, lr {self.lr:g}",
            f"prior preservation: {self.n_prior} images of {self.prior_prompt!r}, drawn by the base or reused",
            *([f"remark: the base was trained at {trained}x{trained} and draws smaller images badly"] if small else []),
        ]


class ConvertConfig(StageConfig):
    """Options of `convert`."""

    base: BaseConfig = BaseConfig()
    adapter: str = Field("", description="run id of finetune, or a .safetensors file; required")
    to: Literal["kohya", "inandout"] = Field(
        "kohya",
        description="kohya: write the format of A1111 and ComfyUI; inandout: read kohya's format, for this base",
    )
    out: str = Field("adapter-converted.safetensors", min_length=1, description="file to write")


class PretrainConfig(StageConfig):
    """Options of `pretrain`."""

    out: str = Field("surface-diffusion", min_length=1, description="folder of the base and its checkpoints")
    start: str = Field(
        "",
        description="folder of a base that pretrain wrote, to continue training its UNet and text encoder and keep its "
        "VAE; empty = train from scratch",
    )
    seed: int = Field(1, ge=0, lt=HELD_OUT, description="seed of weights, surfaces, captions and noise")
    vae_steps: int = Field(4000, ge=1, le=10**7, description="training steps of the VAE decoder")
    vae_lr: float = Field(0.002, gt=0, le=1, description="peak learning rate of the VAE decoder")
    vae_batch_size: int = Field(8, ge=1, le=4096, description="64x64 images per step of the VAE decoder")
    unet_steps: int = Field(60_000, ge=1, le=10**7, description="training steps of UNet and text encoder")
    lr: float = Field(0.0008, gt=0, le=1, description="learning rate of UNet and text encoder before decay")
    text_share: float = Field(
        TEXT_SHARE, gt=0, le=1, description="learning rate of the text encoder relative to the UNet"
    )
    batch_size: int = Field(32, ge=1, le=4096, description="64x64 images per step of UNet and text encoder")
    close_ups: float = Field(
        0.5, ge=0, le=1, description="share of batches of UNet and text encoder with close-ups of defects"
    )
    save_every: int = Field(200, ge=1, le=10**7, description="steps between checkpoints in out/checkpoints")
    sheet_every: int = Field(1000, ge=1, le=10**7, description="steps between contact sheets and exports of the base")


class CleanConfig(StageConfig):
    """Options of `clean`."""

    remove: bool = Field(False, description="remove the files; without it they are listed")
