"""Does an image look like the product? Its colour, light and texture are compared with those of good parts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inandout.data.images import ImageArray
from inandout.errors import InputError

Floats = npt.NDArray[np.float64]

GROUPS: dict[str, slice] = {"colour": slice(0, 2), "light": slice(2, 4), "texture": slice(4, 6)}
"""Group to its statistics in `image_statistics`."""
QUANTILE = 0.99
"""Share of good parts that are within the limit of a group."""
FEWEST = 20
"""Minimum number of good parts."""


class ProductShares(NamedTuple):
    """Shares of images whose statistics are within the limits of good parts, 0..1."""

    colour: float
    light: float
    texture: float
    product: float
    """All three."""


def image_statistics(image: ImageArray) -> Floats:
    """Return six statistics of an image (H, W, 3); medians and quartiles, so that a small defect does not change them.

    Colour: red minus green and blue minus yellow, relative to the brightness. Light: median and interquartile range of
    the brightness. Texture: logarithm of the median absolute difference of neighbours in a row and in a column.
    """
    red, green, blue = np.moveaxis(image.astype(np.float64), 2, 0)
    grey = (red + green + blue) / 3
    low, middle, high = np.percentile(grey, (25, 50, 75))
    scale = middle + 1
    colour = [np.median(red - green) / scale, np.median(blue - (red + green) / 2) / scale]
    texture = [np.log(np.median(np.abs(np.diff(grey, axis=axis))) + 0.5) for axis in (1, 0)]
    return np.array([*colour, middle, high - low, *texture])


def product_shares(images: Sequence[ImageArray], good: Sequence[ImageArray]) -> ProductShares:
    """Compare images with good parts of the product.

    The distance of an image in a group is the Mahalanobis distance to the good parts. The limit is the `QUANTILE` of
    the distances of good parts, each measured without itself.

    Raises:
        InputError: fewer than `FEWEST` good parts.
    """
    if len(good) < FEWEST:
        raise InputError(f"{len(good)} good parts are too few to describe a product; at least {FEWEST} are needed")
    reference = np.stack([image_statistics(image) for image in good])
    found = np.stack([image_statistics(image) for image in images])
    inside = {name: _inside(found[:, part], reference[:, part]) for name, part in GROUPS.items()}
    shares = {name: float(images_inside.mean()) for name, images_inside in inside.items()}
    return ProductShares(**shares, product=float(np.logical_and.reduce(list(inside.values())).mean()))


def _inside(found: Floats, reference: Floats) -> npt.NDArray[np.bool_]:
    """Return which rows of `found` (N, D) are within the limit of `reference` (M, D)."""
    own = [_distances(row[None], np.delete(reference, place, axis=0))[0] for place, row in enumerate(reference)]
    return _distances(found, reference) <= np.quantile(own, QUANTILE)


def _distances(rows: Floats, reference: Floats) -> Floats:
    """Return Mahalanobis distances (N,); a hundredth of a grey level is added so that constant statistics count."""
    covariance = np.cov(reference.T) + 1e-4 * np.eye(reference.shape[1])
    offsets = rows - reference.mean(axis=0)
    squared: Floats = np.einsum("nd,nd->n", offsets @ np.linalg.inv(covariance), offsets)
    return np.sqrt(squared)
