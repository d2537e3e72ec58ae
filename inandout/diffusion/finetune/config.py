"""Options of DreamBooth."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Optimiser = Literal["auto", "adamw", "adamw8bit"]


class DreamBoothConfig(BaseModel):
    """Training settings that are the same in every scenario; `presets.py` has those that the paper varies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(12, ge=1, le=4096, description="images per step, including those of the class prompt")
    micro_batch: int = Field(
        0, ge=0, le=4096, description="images in memory at a time, with the same gradient; 0 = batch_size"
    )
    repeats: int = Field(10, ge=1, le=10_000, description="repeats of each image per epoch")
    schedule_epochs: int = Field(50, ge=1, le=100_000, description="length of the learning-rate schedule in epochs")
    restarts: int = Field(3, ge=1, le=1000, description="cosine cycles in schedule_epochs")
    prior_weight: float = Field(1.0, ge=0, le=100, description="weight of the loss on images of the class prompt")
    mask_weight: float = Field(
        1.0, ge=1, le=100, description="weight of the loss on defects that masks show; 1 = as the rest of the image"
    )
    optimiser: Optimiser = Field(
        "auto", description="auto: AdamW8bit of bitsandbytes (paper) on a GPU to save memory, else AdamW"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations to save memory")
