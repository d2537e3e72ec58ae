"""Configuration of the MemSeg synthesis."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class MaskConfig(BaseModel):
    """Where synthetic anomalies lie."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_area: float = Field(
        default=0.002,
        gt=0,
        le=1,
        description="smallest anomaly, as a share of the foreground's pixels (MemSeg has no limit, and empty masks)",
    )
    max_area: float = Field(
        default=0.5, gt=0, le=1, description="largest anomaly, as a share of the foreground's pixels"
    )
    foreground_threshold: int | None = Field(
        default=None,
        ge=0,
        le=254,
        description="grey value 0..254 that divides object and background; none = the whole image is object",
    )
    foreground_is: Literal["brighter", "darker"] = Field(
        default="brighter", description="the object is brighter than the threshold, or not brighter"
    )

    @model_validator(mode="after")
    def _check_area(self) -> "MaskConfig":
        if self.min_area >= self.max_area:
            raise ValueError(f"min_area = {self.min_area} must be less than max_area = {self.max_area}")
        return self


class MemSegConfig(BaseModel):
    """How synthetic anomalies are drawn. The defaults are MemSeg's (Yang, Wu and Feng 2023) but for what is noted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mask: MaskConfig = MaskConfig()

    opacity_min: float = Field(
        default=0.15, ge=0.05, le=1, description="least weight of the source in the blend; 1 hides the image"
    )
    opacity_max: float = Field(default=1.0, ge=0.05, le=1, description="greatest weight of the source in the blend")
    texture_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of anomalies filled from a texture; the others are filled from the image itself",
    )
    grid: int = Field(
        default=8, ge=1, le=64, description="tiles a side in the shuffle of a structure source; 1 does not shuffle"
    )
    textures: str = Field(
        default="", description="folder of texture images, such as DTD, searched recursively; empty = procedural ones"
    )
    keep_grey: bool = Field(
        default=True,
        description="an image without colour gets an anomaly without colour, as its camera could not record any "
        "(not in MemSeg, where colour alone would give such anomalies away)",
    )

    @model_validator(mode="after")
    def _check_opacity(self) -> "MemSegConfig":
        if self.opacity_min > self.opacity_max:
            raise ValueError(f"opacity_min = {self.opacity_min} must not exceed opacity_max = {self.opacity_max}")
        return self
