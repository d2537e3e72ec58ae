"""The images of one part of a dataset, with their labels and masks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from inandout.classifier.pixels import Pixels, load_pixels
from inandout.classifier.training import Labels
from inandout.data.config import Geometry
from inandout.data.geometry import fit_mask
from inandout.data.images import ImageArray, Mask, read_mask
from inandout.data.manifest import Sample
from inandout.reporting.figures import outline


class Part(NamedTuple):
    """Rows with their pixels and labels."""

    samples: list[Sample]
    pixels: Pixels
    labels: Labels

    def take(self, indices: Sequence[int]) -> "Part":
        """Return the rows of `indices`."""
        return Part([self.samples[i] for i in indices], self.pixels[list(indices)], self.labels[list(indices)])

    def mask(self, index: int, geometry: Geometry) -> Mask | None:
        """Return the mask (H, W) of a row, empty for a good part; None if a defect has no mask file."""
        path = self.samples[index].mask
        if self.labels[index] == 0:
            return np.zeros((geometry.height, geometry.width), bool)
        return fit_mask(read_mask(path), geometry) if path else None


def load_part(samples: Sequence[Sample], geometry: Geometry) -> Part:
    """Load the images of `samples` and fit them to `geometry`."""
    pixels = load_pixels([sample.image for sample in samples], geometry)
    return Part(list(samples), pixels, np.array([sample.label for sample in samples], np.int64))


def outlined(part: Part, index: int, geometry: Geometry, image: ImageArray | None = None) -> ImageArray:
    """Return image `index` (H, W, 3), or `image` in its place, with an outline of the defect if it has a mask."""
    mask, image = part.samples[index].mask, part.pixels[index] if image is None else image
    return outline(image, fit_mask(read_mask(mask), geometry)) if mask else image
