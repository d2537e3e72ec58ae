"""Every picture to one size: centre-crop to the aspect ratio, then resize, as the paper does (section 5, 200x600).

Sizes are width x height in pixels, as Pillow and the paper write them; arrays are (H, W, ...).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from inandout.data.images import Mask, Picture, read_mask
from inandout.data.manifest import Sample


def centre_box(width: int, height: int, to_width: int, to_height: int) -> tuple[int, int, int, int]:
    """The largest centred box (left, top, right, bottom) of a width x height picture with the aspect to_width:to_height."""
    box_width = min(width, max(1, round(height * to_width / to_height)))
    box_height = min(height, max(1, round(width * to_height / to_width)))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def fit_image(picture: Picture, width: int, height: int) -> Picture:
    """Centre-crop and resize (antialiased) to (height, width, 3); the same array if it has that size already."""
    if picture.shape[:2] == (height, width):
        return picture
    box = centre_box(picture.shape[1], picture.shape[0], width, height)
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR, box=box))


def fit_mask(mask: Mask, width: int, height: int) -> Mask:
    """As `fit_image` for a mask (H, W), but resized by maximum: a one-pixel defect survives any shrinking."""
    left, top, right, bottom = centre_box(mask.shape[1], mask.shape[0], width, height)
    cropped = mask[top:bottom, left:right]
    rows = np.maximum.reduceat(cropped, _bin_starts(cropped.shape[0], height), axis=0)
    fitted: Mask = np.maximum.reduceat(rows, _bin_starts(cropped.shape[1], width), axis=1)
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
            f"{self.defects - self.lost} of {self.defects} defects survive crop and resize, the smallest has "
            f"{self.smallest} px; one pixel stands for up to {self.pixels_per_pixel:.1f} px of the original"
        )


def survival(samples: Sequence[Sample], width: int, height: int) -> Survival:
    """Measure on the masks of a manifest what is lost when every picture becomes width x height."""
    surviving: list[int] = []
    defects, ratio = 0, 1.0
    for sample in samples:
        if sample.mask is None or sample.label == 0:
            continue
        mask = read_mask(sample.mask)
        left, top, right, bottom = centre_box(mask.shape[1], mask.shape[0], width, height)
        ratio = max(ratio, (right - left) * (bottom - top) / (width * height))
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        defects += count
        areas = np.bincount(labelled.ravel(), minlength=count + 1)
        surviving += [int(areas[k]) for k in np.unique(labelled[top:bottom, left:right]) if k > 0]
    return Survival(ratio, defects, defects - len(surviving), min(surviving, default=None))


def _bin_starts(size: int, bins: int) -> npt.NDArray[np.intp]:
    """First index of each of `bins` equal parts of range(size); an index stands twice where bins > size."""
    return np.arange(bins) * size // bins
