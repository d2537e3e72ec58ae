"""Options of sampling, and their defaults for each kind of base."""

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from inandout.diffusion.base.config import Kind

GuidanceMode: TypeAlias = Literal["plain", "composed"]


_DEFAULTS: dict[Kind, dict[str, object]] = {
    "embedded": {"guidance": 3.0, "steps": 12, "scheduler": "dpm++"},
    "sd": {"guidance": 7.5, "steps": 50, "scheduler": "ddim"},
    "sd2": {"guidance": 7.5, "steps": 50, "scheduler": "ddim"},
    "sdxl": {"guidance": 5.0, "steps": 50, "scheduler": "ddim"},
}
"""The settings with which the embedded base is evaluated; the paper's for Stable Diffusion 1, also used for 2; and for
SDXL the guidance and steps that diffusers' pipeline has as defaults."""


class SamplingConfig(BaseModel):
    """Sampling settings. None stands for the default of the base."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    negative_prompt: str = Field("", description="negative prompt of the guidance")
    guidance: float | None = Field(
        None, ge=1, le=50, description="guidance scale; 1 = no guidance, in half the time; none = default of the base"
    )
    steps: int | None = Field(None, ge=1, le=1000, description="denoising steps; none = default of the base")
    scheduler: Literal["dpm++", "ddim"] | None = Field(
        None,
        description="second-order DPM-Solver++ (few steps), or DDIM with eta 0 (steps must divide the base's, "
        "e.g. 50); none = default of the base",
    )
    sample_batch: int = Field(8, ge=1, le=1024, description="images per batch")
    strength: float = Field(
        1.0,
        gt=0,
        le=1,
        description="inpainting: share of the denoising steps; below 1, it begins with the noised canvas (DIAG: .99)",
    )
    mask_crop: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="inpainting: draw in a window around the mask with this margin in px, enlarged to the image (DIAG: "
        "2); none = in the whole image",
    )

    def resolved(self, kind: Kind) -> "SamplingConfig":
        """Return the configuration with the base's defaults in place of None."""
        return self.model_copy(update={name: v for name, v in _DEFAULTS[kind].items() if getattr(self, name) is None})
