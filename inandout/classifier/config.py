"""Options of the classifier and its training."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inandout.data.manifest import digest

Backbone = Literal["resnet50", "resnet18", "mobilenet_v2", "efficientnet_b0"]
Freeze = Literal["none", "norm", "all"]
Head = Literal["image", "mask"]
Tile = Annotated[int, Field(ge=0, le=4096, multiple_of=32)]
PATCHES = 2000
"""Maximum number of patches of good parts that distances are measured to, unless an option says otherwise."""


class NetworkConfig(BaseModel):
    """Network and initial weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Backbone = Field("resnet50", description="torchvision network (paper: resnet50)")
    weights: str = Field("none", min_length=1, description="initial weights: none, imagenet, or a .safetensors file")

    def inputs(self) -> dict[str, str]:
        """Return the digest of the weights file under `weights`, or nothing if the weights are not a file."""
        path = Path(self.weights)
        return {"weights": digest(path)} if path.is_file() else {}

    def weights_identity(self) -> str:
        """Return the digest of the weights file, or `weights` itself if it is not a file."""
        return self.inputs().get("weights", self.weights)


class BackboneConfig(NetworkConfig):
    """Network, initial weights, frozen layers, heads and tiles."""

    freeze: Freeze = Field(
        "none",
        description="what training leaves unchanged: none; norm = statistics and parameters of the batch norm layers; "
        "all = everything but the heads",
    )
    head: Head = Field(
        "image",
        description="what is learned: image = the label (paper); mask = also a map of the defect, from masks",
    )
    tile: Tile = Field(
        0,
        description="side in px of overlapping tiles; a smooth maximum over them gives the score; 0 = the whole image",
    )


class DetectorConfig(BackboneConfig):
    """`BackboneConfig`, and whether distances to good parts are added."""

    distances: bool = Field(
        False,
        description="add the distance to good training parts, as nearest measures it, to the score; needs freeze=all",
    )

    @model_validator(mode="after")
    def _distances_need_a_frozen_backbone(self) -> "DetectorConfig":
        if self.distances and self.freeze != "all":
            raise ValueError(
                f"distances = True compares features of a frozen backbone, and freeze is {self.freeze}; give "
                "freeze=all, or distances=false"
            )
        return self


Optimiser = Literal["sgd", "adamw"]


class FitConfig(BaseModel):
    """Training hyperparameters. With the defaults, two CPU cores train the embedded dataset in minutes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(10, ge=1, le=10_000, description="number of passes over the positives (paper: 50)")
    batch_size: int = Field(8, ge=2, le=4096, description="images per step (paper: 5)")
    optimiser: Optimiser = Field(
        "adamw", description="sgd (paper) needs pretrained weights; adamw also trains random weights"
    )
    lr: float = Field(0.001, gt=0, le=10, description="learning rate (paper: 0.01)")
    compile: bool = Field(
        False,
        description="compile the network with torch.compile, which takes about a minute; no effect with freeze=all",
    )
