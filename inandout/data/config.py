"""Options of datasets: which one, how it is split, and the size of its images."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from inandout.errors import did_you_mean

Shot = Literal["zero", "few", "full"]

AnnotationFormat = Literal["coco", "yolo", "mvtec", "datumaro"]
"""Formats that `export-pool` writes."""


EMBEDDED = "surfaces"
"""Value of `data` that selects the embedded dataset."""


Seed = Annotated[int, Field(ge=0, lt=2**32, description="seed of the split, shot, images, weights and data order")]


class DataConfig(BaseModel):
    """Dataset and split shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(
        EMBEDDED,
        min_length=1,
        description="surfaces (procedural, generated on first use), a CSV manifest, or a folder in the layout of "
        "KolektorSDD2, MVTec-AD, or good/ and defect/",
    )
    test_share: float = Field(0.35, gt=0, lt=1, description="share of the test split, if the dataset has no split")
    val_share: float = Field(0.2, ge=0, le=0.5, description="share of the training split held out for validation")
    fold: str = Field(
        "", description="test on fold K of N and train on the others, as 2/5; empty = the split of the dataset"
    )

    @field_validator("fold")
    @classmethod
    def _is_a_fold(cls, fold: str) -> str:
        number, slash, folds = fold.partition("/")
        valid = (
            slash and number.isdigit() and folds.isdigit() and 1 <= int(number) <= int(folds) and 2 <= int(folds) <= 50
        )
        if fold and not valid:
            raise ValueError("must be K/N with 1 <= K <= N and 2 <= N <= 50, for example 2/5")
        return fold

    def fold_numbers(self) -> tuple[int, int] | None:
        """Return K and N of `fold`, or None if it is empty."""
        number, _, folds = self.fold.partition("/")
        return (int(number), int(folds)) if self.fold else None

    def name(self) -> str:
        """Return the dataset for progress messages."""
        return "surfaces (embedded, drawn on first use)" if self.data == EMBEDDED else self.data


NShot = Annotated[int, Field(ge=1, description="number of real positives for shot=few")]
EachKind = Annotated[bool, Field(description="shot=few: take n_shot of each kind of defect instead of n_shot in all")]


class ShotConfig(BaseModel):
    """Number of real positives to train on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shot: Shot = Field("full", description="real positives to train on: zero, few (n_shot) or full (all)")
    n_shot: NShot = 5
    each_kind: EachKind = False

    def describe(self) -> str:
        """Return the shot for progress messages."""
        few_of_each = self.shot == "few" and self.each_kind
        return f"few, {self.n_shot} of each kind" if few_of_each else self.shot


class Size(BaseModel):
    """Size of all images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(64, ge=32, le=4096, description="image width in pixels (paper: 200)")
    height: int = Field(192, ge=32, le=4096, description="image height in pixels (paper: 600)")


class Geometry(Size):
    """Size of all images, and how they are fitted to it."""

    fit: Literal["crop", "stretch"] = Field(
        "crop",
        description="crop: largest centre crop of the target aspect ratio, then resize, as in the paper; stretch: "
        "resize the whole image, for varying aspect ratios, where a crop would remove defects",
    )

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the crop box (left, top, right, bottom) of a width x height image."""
        if self.fit == "stretch":
            return 0, 0, width, height
        box_width = min(width, max(1, round(height * self.width / self.height)))
        box_height = min(height, max(1, round(width * self.height / self.width)))
        left, top = (width - box_width) // 2, (height - box_height) // 2
        return left, top, left + box_width, top + box_height


Window = Annotated[
    int | None,
    Field(
        ge=16,
        le=4096,
        description="side in pixels of a square of the image, with the defect, that diffusion learns or inpaints at "
        "the base's own size; none = the whole image",
    ),
]

SURFACES = ("brushed", "ground", "grained", "woven", "concrete", "cast", "wooden", "ceramic")
"""Materials of the embedded dataset."""

KINDS = ("cracked", "scratched", "pitted", "stained", "dented", "spotted")
"""Kinds of defects of the embedded dataset."""

MIN_SIDE = 16
"""Minimum side of a surface in pixels."""

MIXED = "mixed"
"""Value of `SurfacesConfig.surface` that selects all surfaces."""


class SurfacesConfig(BaseModel):
    """Configuration of a surfaces dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(64, ge=MIN_SIDE, le=4096, description="image width in pixels")
    height: int = Field(192, ge=MIN_SIDE, le=4096, description="image height in pixels")
    train_negatives: int = Field(480, ge=1, le=10_000, description="training images without a defect")
    train_positives: int = Field(96, ge=0, le=10_000, description="training images with a defect")
    test_negatives: int = Field(160, ge=1, le=10_000, description="test images without a defect")
    test_positives: int = Field(60, ge=1, le=10_000, description="test images with a defect")
    surface: str = Field(
        "brushed",
        description=f"one of {', '.join(SURFACES)} (parts of one product), or {MIXED} (a different product per image)",
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the product and of all images")

    @field_validator("surface")
    @classmethod
    def _known(cls, surface: str) -> str:
        if surface not in (*SURFACES, MIXED):
            nearest = did_you_mean(surface, [*SURFACES, MIXED])
            raise ValueError(f"unknown surface {surface!r}; use one of {', '.join(SURFACES)}, {MIXED}{nearest}")
        return surface
