"""Every image to one size, as the paper does (section 5: centre-crop and resize to 200x600).

Sizes are width x height in pixels, as Pillow and the paper write them; arrays are (H, W, ...).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from inandout.data.file_cache import FileCache
from inandout.data.images import ImageArray, Mask, read_mask
from inandout.data.manifest import Sample


class Size(BaseModel):
    """The size of images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(64, ge=32, le=4096, description="width in pixels that every image is fitted to (paper: 200)")
    height: int = Field(192, ge=32, le=4096, description="height in pixels, likewise (paper: 600)")


class Geometry(Size):
    """The size every image gets, and how."""

    fit: Literal["crop", "stretch"] = Field(
        "crop",
        description="crop: the largest centred part of that aspect, as the paper does; stretch: the whole image, for "
        "data of many aspects, where a crop would lose defects",
    )

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The part (left, top, right, bottom) of a width x height image that is kept."""
        if self.fit == "stretch":
            return 0, 0, width, height
        box_width = min(width, max(1, round(height * self.width / self.height)))
        box_height = min(height, max(1, round(width * self.height / self.width)))
        left, top = (width - box_width) // 2, (height - box_height) // 2
        return left, top, left + box_width, top + box_height


def fit_image(image: ImageArray, geometry: Geometry) -> ImageArray:
    """Cut and resize (antialiased) to (height, width, 3); the same array if it has that size already."""
    if image.shape[:2] == (geometry.height, geometry.width):
        return image
    box = geometry.box(image.shape[1], image.shape[0])
    resized = Image.fromarray(image).resize((geometry.width, geometry.height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)


def fit_mask(mask: Mask, geometry: Geometry) -> Mask:
    """As `fit_image` for a mask (H, W), but resized by maximum: a one-pixel defect survives any shrinking."""
    left, top, right, bottom = geometry.box(mask.shape[1], mask.shape[0])
    cut = mask[top:bottom, left:right]
    rows = np.maximum.reduceat(cut, _bin_starts(cut.shape[0], geometry.height), axis=0)
    fitted: Mask = np.maximum.reduceat(rows, _bin_starts(cut.shape[1], geometry.width), axis=1)
    return fitted


class Survival(NamedTuple):
    """What the geometry does to the defects of a data set."""

    pixels_per_pixel: float
    """Area in original pixels that becomes one pixel, at most: a smaller defect is diluted below one pixel."""
    defects: int
    """Connected defects in the masks."""
    lost: int
    """Defects that lie wholly in the part that is cropped away."""
    smallest: int | None
    """Area in original pixels of the smallest defect that survives; None where no mask shows one."""

    def sentence(self) -> str:
        """The same for a person."""
        if self.smallest is None:
            return "no defect masks: the smallest defect that survives the resize cannot be told"
        return (
            f"{self.defects - self.lost} of {self.defects} defects survive, the smallest has {self.smallest} px; "
            f"one pixel stands for up to {self.pixels_per_pixel:.1f} px of the original"
        )


def survival(samples: Sequence[Sample], geometry: Geometry) -> Survival:
    """Measure on the masks of a manifest what is lost when every image gets this size."""
    masks = [sample.mask for sample in samples if sample.mask is not None and sample.label == 1]
    found = [one for _, one in _DEFECTS.each(masks, lambda mask: _defects(mask, geometry), geometry)]
    ratio = max([1.0, *(one.pixels_per_pixel for one in found)])
    defects, surviving = sum(one.defects for one in found), [area for one in found for area in one.surviving]
    return Survival(ratio, defects, defects - len(surviving), min(surviving, default=None))


class _Defects(NamedTuple):
    """What the geometry does to the defects of one mask."""

    pixels_per_pixel: float
    defects: int
    surviving: tuple[int, ...]
    """Areas in original pixels of those that survive."""


_DEFECTS: FileCache[_Defects] = FileCache(100_000)


def _defects(path: Path, geometry: Geometry) -> _Defects:
    mask = read_mask(path)
    left, top, right, bottom = geometry.box(mask.shape[1], mask.shape[0])
    labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(labelled.ravel(), minlength=count + 1)
    surviving = tuple(int(areas[k]) for k in np.unique(labelled[top:bottom, left:right]) if k > 0)
    return _Defects((right - left) * (bottom - top) / (geometry.width * geometry.height), count, surviving)


def _bin_starts(size: int, bins: int) -> npt.NDArray[np.intp]:
    """First index of each of `bins` equal parts of range(size); an index stands twice where bins > size."""
    return np.arange(bins) * size // bins
