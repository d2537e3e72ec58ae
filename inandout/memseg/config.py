"""Configuration of MemSeg anomalies."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class MaskConfig(BaseModel):
    """Position and area of synthetic anomalies."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_area: float = Field(
        default=0.002,
        gt=0,
        le=1,
        description="minimum area of an anomaly, as a share of the foreground (MemSeg: no limit, masks may be empty)",
    )
    max_area: float = Field(
        default=0.5, gt=0, le=1, description="maximum area of an anomaly, as a share of the foreground"
    )
    foreground_threshold: int | None = Field(
        default=None,
        ge=0,
        le=254,
        description="grey value 0..254 that separates object and background; none: the whole image is the object",
    )
    foreground_is: Literal["brighter", "darker"] = Field(
        default="brighter", description="whether the object is above or not above the threshold"
    )

    @model_validator(mode="after")
    def _check_area(self) -> "MaskConfig":
        if self.min_area >= self.max_area:
            raise ValueError(f"min_area = {self.min_area} must be less than max_area = {self.max_area}")
        return self


class MemSegConfig(BaseModel):
    """Configuration of synthetic anomalies. Defaults are MemSeg's (Yang, Wu and Feng 2023) unless noted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mask: MaskConfig = MaskConfig()

    opacity_min: float = Field(
        default=0.15, ge=0.05, le=1, description="minimum opacity of the anomaly; 1 hides the image"
    )
    opacity_max: float = Field(default=1.0, ge=0.05, le=1, description="maximum opacity of the anomaly")
    texture_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of anomalies filled with a texture; the others are filled with the transformed image",
    )
    grid: int = Field(
        default=8, ge=1, le=64, description="tiles per side shuffled in a structure source; 1 disables shuffling"
    )
    textures: str = Field(
        default="",
        description="folder of texture images, such as DTD, searched recursively; empty: procedural textures",
    )
    keep_grey: bool = Field(
        default=True,
        description="draw grey anomalies on grey images (not in MemSeg, where colour alone would reveal the anomaly)",
    )

    @model_validator(mode="after")
    def _check_opacity(self) -> "MemSegConfig":
        if self.opacity_min > self.opacity_max:
            raise ValueError(f"opacity_min = {self.opacity_min} must not exceed opacity_max = {self.opacity_max}")
        return self
