"""Fit all images to one size, as in the paper (section 5: centre crop and resize to 200x600).

Sizes are width x height in pixels, as in Pillow and the paper; arrays are (H, W, ...).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from inandout.data.config import Geometry
from inandout.data.file_cache import FileCache
from inandout.data.images import ImageArray, Mask, read_mask
from inandout.data.manifest import Sample


def fit_image(image: ImageArray, geometry: Geometry) -> ImageArray:
    """Crop and resize (bilinear, antialiased) to (height, width, 3); an image of that size is returned as is."""
    if image.shape[:2] == (geometry.height, geometry.width):
        return image
    box = geometry.box(image.shape[1], image.shape[0])
    resized = Image.fromarray(image).resize((geometry.width, geometry.height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)


def fit_mask(mask: Mask, geometry: Geometry) -> Mask:
    """Crop and resize a mask (H, W) by maximum pooling, so that a one-pixel defect survives any downscaling."""
    left, top, right, bottom = geometry.box(mask.shape[1], mask.shape[0])
    cut = mask[top:bottom, left:right]
    rows = np.maximum.reduceat(cut, _bin_starts(cut.shape[0], geometry.height), axis=0)
    fitted: Mask = np.maximum.reduceat(rows, _bin_starts(cut.shape[1], geometry.width), axis=1)
    return fitted


class Survival(NamedTuple):
    """Effect of the geometry on the defects of a dataset."""

    pixels_per_pixel: float
    """Maximum area in original pixels that becomes one pixel; smaller defects are averaged with their surroundings."""
    defects: int
    """Connected components in the masks."""
    lost: int
    """Defects entirely outside the crop."""
    smallest: int | None
    """Area in original pixels of the smallest surviving defect; None if no mask shows one."""

    def sentence(self) -> str:
        """Return a one-line summary."""
        if self.smallest is None:
            return "no defect masks: the smallest defect that survives the resize is unknown"
        return (
            f"{self.defects - self.lost} of {self.defects} defects survive, the smallest has {self.smallest} px; "
            f"one pixel covers up to {self.pixels_per_pixel:.1f} px of the original"
        )


def survival(samples: Sequence[Sample], geometry: Geometry) -> Survival:
    """Measure on the masks of a manifest how many defects survive crop and resize."""
    masks = [sample.mask for sample in samples if sample.mask is not None and sample.label == 1]
    per_mask = [result for _, result in _DEFECTS.each(masks, lambda mask: _defects(mask, geometry), geometry)]
    ratio = max([1.0, *(result.pixels_per_pixel for result in per_mask)])
    defects = sum(result.defects for result in per_mask)
    surviving = [area for result in per_mask for area in result.surviving]
    return Survival(ratio, defects, defects - len(surviving), min(surviving, default=None))


class _Defects(NamedTuple):
    """Effect of the geometry on the defects of one mask."""

    pixels_per_pixel: float
    defects: int
    surviving: tuple[int, ...]
    """Areas of the surviving defects in original pixels."""


_DEFECTS: FileCache[_Defects] = FileCache(100_000)


def _defects(path: Path, geometry: Geometry) -> _Defects:
    mask = read_mask(path)
    left, top, right, bottom = geometry.box(mask.shape[1], mask.shape[0])
    labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(labelled.ravel(), minlength=count + 1)
    surviving = tuple(int(areas[k]) for k in np.unique(labelled[top:bottom, left:right]) if k > 0)
    return _Defects((right - left) * (bottom - top) / (geometry.width * geometry.height), count, surviving)


def _bin_starts(size: int, bins: int) -> npt.NDArray[np.intp]:
    """Return the first index of each of `bins` equal parts of range(size); indices repeat if bins > size."""
    return np.arange(bins) * size // bins
