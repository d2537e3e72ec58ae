"""Configurations of `augment`, `extend-pool` and of the pools that other entry points generate."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from inandout.data.config import AnnotationFormat, DataConfig, Geometry, Seed, ShotConfig, Window
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.sample.config import GuidanceMode, SamplingConfig
from inandout.diffusion.sample.presets import (
    DIAG_PROMPTS,
    DIAG_SAMPLING,
    DIAG_SIDE,
    DrawingPreset,
    Strength,
    drawing_preset,
)
from inandout.errors import InputError
from inandout.hardware import HardwareConfig
from inandout.memseg.config import MaskConfig, MemSegConfig
from inandout.options import Fresh, StageConfig
from inandout.stages.config import AdapterSize, FinetuneConfig

PoolSource = Annotated[
    Literal["memseg", "ddpm", "inpaint"],
    Field(
        description="memseg; ddpm: whole images from a fine-tuned diffusion model; inpaint: defects that the model "
        "draws inside masks on good parts"
    ),
]
PoolSize = Annotated[int, Field(ge=1, le=100_000, description="number of synthetic positives")]


class DrawingConfig(BaseModel):
    """Adapter and prompts of diffusion images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str = Field(
        "", description="run id of finetune, or a .safetensors file; empty = fine-tune with the defaults of finetune"
    )
    alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="merging weight of the adapter; none = default for base, shot and source (paper: .6, .95, .8)",
    )
    guidance_mode: GuidanceMode | None = Field(
        None,
        description="plain = guidance of the fine-tuned model alone (paper); composed = product from the fine-tuned "
        "model, defect from the base, in 1.5 times the time; none = default of the base",
    )
    prompts: str = Field(
        "",
        description="prompts, separated by | and used in rotation; empty = the adapter's instance prompt, with zero "
        "shots followed by a defect (paper: skt background cracked|skt background scratched)",
    )

    def prompt_list(self) -> list[str]:
        """Return the non-empty prompts."""
        return [prompt.strip() for prompt in self.prompts.split("|") if prompt.strip()]


class DdpmConfig(StageConfig):
    """Options that diffusion images depend on."""

    data: DataConfig = DataConfig()
    scenario: ShotConfig = ShotConfig()
    geometry: Geometry = Geometry()
    base: BaseConfig = BaseConfig()
    sampling: SamplingConfig = SamplingConfig()
    drawing: DrawingConfig = DrawingConfig()
    hardware: HardwareConfig = HardwareConfig()
    seed: Seed = 0

    def preset(self) -> DrawingPreset:
        """Return the defaults for base, shot and guidance mode."""
        return drawing_preset(self.base.kind(), self.scenario.shot, self.drawing.guidance_mode)[1]

    def strength(self) -> Strength:
        """Return the defaults of alpha and guidance."""
        return self.preset().whole

    def learned_window(self) -> Window:
        """Return the window of the fine-tuning."""
        return None

    def learned_kind(self) -> str:
        """Return the kind of defect of the fine-tuning; "" = all."""
        return ""

    def resolved(self) -> Self:
        """Replace None by the defaults for base and shot, and set prompts if no adapter is given."""
        kind = self.base.kind()
        mode = drawing_preset(kind, self.scenario.shot, self.drawing.guidance_mode)[0]
        alpha = self.strength().alpha if self.drawing.alpha is None else self.drawing.alpha
        guidance = self.strength().guidance if self.sampling.guidance is None else self.sampling.guidance
        sampling = self.sampling.model_copy(update={"guidance": guidance}).resolved(kind)
        resolved = self.with_drawing(alpha=alpha, guidance_mode=mode).model_copy(update={"sampling": sampling})
        return resolved if self.drawing.adapter else resolved.with_prompts(FinetuneConfig().instance_prompt)

    def with_prompts(self, instance_prompt: str) -> Self:
        """Set the prompts from the instance prompt of an adapter, if none are given.

        Raises:
            InputError: no prompts are given and `instance_prompt` is empty.
        """
        prompts = self.drawing.prompt_list()
        if not prompts and not instance_prompt:
            raise InputError("the adapter does not record its instance prompt; give prompts")
        prompts = prompts or [f"{instance_prompt} {defect}".strip() for defect in self.preset().defects]
        return self.with_drawing(prompts="|".join(prompts))

    def with_drawing(self, **changes: str | float | None) -> Self:
        """Return a copy with changed fields of `drawing`."""
        return self.model_copy(update={"drawing": self.drawing.model_copy(update=changes)})


def finetune_config(config: DdpmConfig) -> FinetuneConfig:
    """Return the configuration of the fine-tuning, with the defaults of `finetune`."""
    size = AdapterSize(width=config.geometry.width, height=config.geometry.height, fit=config.geometry.fit)
    return FinetuneConfig(
        data=config.data, scenario=config.scenario, geometry=size, base=config.base, hardware=config.hardware,
        seed=config.seed, window=config.learned_window(), kind=config.learned_kind(),
    )  # fmt: skip


class DdpmPoolConfig(DdpmConfig):
    """Options of a pool of diffusion images."""

    source: PoolSource = "ddpm"
    n_aug: PoolSize = 60
    fresh: Fresh = False


NO_ADAPTER = "none"
"""Value of `adapter` for the base without fine-tuning, as in DIAG."""


Masks = Annotated[
    Literal["drawn", "perlin", "real", "all"] | None,
    Field(
        description="masks of source=inpaint: drawn = where a whole image with the defect differs from the image "
        "without it (composed guidance); perlin = Perlin noise, as in MemSeg; real = masks of real defects of the "
        "training part (few and full shot); all = those of all real defects of the training part, also of those that "
        "the shot withholds (DIAG); none = drawn with composed guidance, real with kind, else perlin"
    ),
]


Kind = Annotated[
    str,
    Field(
        description="source=inpaint with few and full shot: kind of defect, from the column defect of the manifest; "
        "real masks are of this kind, the pool records it, and fine-tuning learns this kind only; a given adapter "
        "must have learned it; empty = all kinds"
    ),
]


class InpaintPoolConfig(DdpmPoolConfig):
    """Options of a pool of defects on good parts."""

    source: PoolSource = "inpaint"
    mask: MaskConfig = MaskConfig()
    masks: Masks = None
    window: Window = None
    kind: Kind = ""

    def strength(self) -> Strength:
        """Return the defaults of alpha and guidance."""
        return self.preset().inpaint

    def learned_window(self) -> Window:
        """Return the window of the fine-tuning: the one that is inpainted."""
        return self.window

    def learned_kind(self) -> str:
        """Return the kind of defect of the fine-tuning: the one that is inpainted."""
        return self.kind

    def resolved(self) -> Self:
        """Resolve as for whole images, and `masks`; without an adapter, `alpha` is None and guidance is plain.

        Raises:
            InputError: composed guidance without an adapter, drawn masks without composed guidance, two windows, or a
                kind of defect that these options do not draw.
        """
        if self.window and self.sampling.mask_crop is not None:
            raise InputError(
                f"window = {self.window} and mask_crop = {self.sampling.mask_crop} exclude each other; give one"
            )
        resolved = self._resolved_drawing()
        if self.kind:
            resolved._check_kind()
        composed = resolved.drawing.guidance_mode == "composed"
        if self.masks == "drawn" and not composed:
            raise InputError(
                "masks = drawn: needs guidance_mode = composed; give guidance_mode=composed with an adapter, or "
                "masks=perlin"
            )
        default = "real" if self.kind else "drawn" if composed else "perlin"
        return resolved.model_copy(update={"masks": self.masks or default})

    def _check_kind(self) -> None:
        """Check that the options of a resolved configuration draw the requested kind of defect."""
        if self.scenario.shot == "zero":
            raise InputError(
                f"kind = {self.kind}: shot=zero uses no real defect; give shot=few or shot=full, or leave kind out"
            )
        if self.drawing.guidance_mode == "composed":
            raise InputError(
                f"kind = {self.kind}: composed guidance takes the defect from the base, which has not learned this "
                "kind; give guidance_mode=plain"
            )
        if self.masks not in ("real", "all", None):
            raise InputError(f"kind = {self.kind}: masks = {self.masks} have no kind; give masks=real or masks=all")

    def _resolved_drawing(self) -> Self:
        if self.drawing.adapter != NO_ADAPTER:
            return super().resolved()
        if self.drawing.guidance_mode == "composed":
            raise InputError("guidance_mode = composed: needs an adapter, but adapter = none; give guidance_mode=plain")
        resolved: Self = super(InpaintPoolConfig, self.with_drawing(guidance_mode="plain")).resolved()
        return resolved.with_drawing(alpha=None)


def inpainting(
    pool: DdpmPoolConfig, mask: MaskConfig, masks: Masks, window: Window, kind: str = ""
) -> InpaintPoolConfig:
    """Return the configuration of `pool` for inpainting on good parts."""
    return InpaintPoolConfig(
        data=pool.data, scenario=pool.scenario, geometry=pool.geometry, base=pool.base, sampling=pool.sampling,
        drawing=pool.drawing, hardware=pool.hardware, seed=pool.seed, n_aug=pool.n_aug, fresh=pool.fresh, mask=mask,
        masks=masks, window=window, kind=kind,
    )  # fmt: skip


def diag(pool: DdpmPoolConfig) -> InpaintPoolConfig:
    """Return the configuration of `pool` with the published settings of DIAG: no adapter, masks of all real defects."""
    size = Geometry(width=DIAG_SIDE, height=DIAG_SIDE, fit="stretch")
    drawing = DrawingConfig(adapter=NO_ADAPTER, prompts="|".join(DIAG_PROMPTS))
    settings = pool.model_copy(update={"geometry": size, "sampling": DIAG_SAMPLING, "drawing": drawing})
    return inpainting(settings, MaskConfig(), "all", None)


class MemSegPoolConfig(StageConfig):
    """Options of a MemSeg pool."""

    source: PoolSource = "memseg"
    data: DataConfig = DataConfig()
    geometry: Geometry = Geometry()
    memseg: MemSegConfig = MemSegConfig()
    seed: Seed = 0
    n_aug: PoolSize = 60
    fresh: Fresh = False


class AugmentConfig(DdpmPoolConfig):
    """Options of a pool of any source; options of other sources have no effect."""

    memseg: MemSegConfig = MemSegConfig()
    masks: Masks = None
    window: Window = None
    kind: Kind = ""
    source: PoolSource = "memseg"

    def resolved(self) -> Self:
        """Resolve the options of the source; the others stay as they are."""
        return self.with_options(**self.source_config().resolved().flat())

    def summary(self) -> list[str]:
        """Return what is drawn on which images."""
        size = self.geometry
        lines = [f"data: {self.data.name()}, {size.width}x{size.height}, seed={self.seed}"]
        pool = self.source_config()
        if isinstance(pool, MemSegPoolConfig):
            return [*lines, f"augment: {self.n_aug} MemSeg anomalies on good parts of the training part"]
        kind = "whole images" if pool.source == "ddpm" else f"{self.kind} defects inpainted on good parts".strip()
        drawing = pool.drawing
        adapter = f"adapter {drawing.adapter}" if drawing.adapter else "an adapter that is fine-tuned first or reused"
        alpha = "" if drawing.alpha is None else f", alpha {drawing.alpha:g}"
        return [
            *lines,
            f"augment: {self.n_aug} {kind} by base {self.base.base} with {adapter}{alpha}, {pool.sampling.steps} steps",
        ]

    def source_config(self) -> MemSegPoolConfig | DdpmPoolConfig:
        """Return the configuration of the pool, without the options of other sources.

        Raises:
            InputError: `kind` with another source than inpaint.
        """
        if self.kind and self.source != "inpaint":
            raise InputError(f"kind = {self.kind}: source = {self.source} does not use it; give source=inpaint")
        if self.source == "memseg":
            return MemSegPoolConfig(
                data=self.data, geometry=self.geometry, memseg=self.memseg, seed=self.seed, n_aug=self.n_aug,
                fresh=self.fresh,
            )  # fmt: skip
        diffusion = DdpmPoolConfig(
            data=self.data, scenario=self.scenario, geometry=self.geometry, base=self.base, sampling=self.sampling,
            drawing=self.drawing, hardware=self.hardware, seed=self.seed, n_aug=self.n_aug, fresh=self.fresh,
        )  # fmt: skip
        if self.source == "ddpm":
            return diffusion
        return inpainting(diffusion, self.memseg.mask, self.masks, self.window, self.kind)


Negatives = Literal["none", "roundtrip", "generated"]


class RoundTripConfig(StageConfig):
    """Options of a pool of real good parts that the VAE of the base encodes and decodes."""

    data: DataConfig = DataConfig()
    geometry: Geometry = Geometry()
    base: BaseConfig = BaseConfig()
    hardware: HardwareConfig = HardwareConfig()
    seed: Seed = 0
    n_aug: PoolSize = 60
    fresh: Fresh = False


class ExtendPoolConfig(StageConfig):
    """Options of `extend-pool`."""

    pool: str = Field("", description="run id of a reviewed pool")
    n_aug: int = Field(20, ge=1, le=100_000, description="number of new images; they need a review as well")
    hardware: HardwareConfig = HardwareConfig()
    fresh: Fresh = False


class ExportPoolConfig(StageConfig):
    """Options of `export-pool`."""

    pool: str = Field("", description="folder or run id of the pool")
    format: AnnotationFormat = Field("coco", description="coco, yolo, mvtec or datumaro")
    out: str = Field("exported_pool", min_length=1, description="folder to write; must be new")
