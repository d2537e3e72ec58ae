"""Which generated images may enter a pool: no black, flat, broken or repeated ones, and none of the training set."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from inandout.data.duplicates import SimilarityIndex, Thumbnail, thumbnail
from inandout.data.images import ImageArray

RejectReason = Literal["non-finite", "unchanged", "black", "flat", "duplicate", "copy"]
"""Why an image is kept out: NaN or infinity on the way to it; drawn on a part, but not to be seen there; (nearly) all
black; all of one tone; one that was accepted before, again; an image of the training set."""

BLACK = 16.0
"""Grey level that 99 % of the pixels of a black image stay below.

The darkest of 4,600 procedural surfaces, black ceramic in dim light, has 44, the darkest of 1,338 photographs of
magnetic tiles 68; what is made of NaN, or blackened by a safety checker, has 0.
"""

FLAT = 0.75
"""Standard deviation of grey levels that a flat image stays below, however bright it is.

The smoothest of 4,600 procedural surfaces, black ceramic in even light, has 1.5, the smoothest magnetic tile 8.3; what
the VAE of `surface-diffusion` makes of an even grey has 0.1 to 0.3, of the latent zero 0.2.
"""

SAME = 0.85
"""Similarity (`inandout.data.duplicates`) from which two images count as the same one.

It is stricter than the 0.8 that groups photographs, as parts of one product look more alike than any two photographs:
a weave has the same thread in the same place on all of them. Measured with 0, 5 and 30 training images:

Different images: none of 3.1 million pairs of parts of one product (eight materials, 64x64, 64x192 and 96x96 px)
reaches it; the highest has 0.84 (cloth without training images to tell what is shared), 0.75 with 30 of them. On
magnetic tiles (96x96 px, 891,000 pairs of different groups) the highest that do show different tiles have 0.77.

Copies that were flipped, brightened or darkened by 20 levels, changed in gamma (0.7, 1.5), sent through the VAE, or the
last with flip and brightness: all were found, of surfaces and of tiles. Of copies with noise of 4 levels, all
tiles and 89 % or more of most materials at 64x64 px, but 6 % of ceramic, whose structure is weaker than that; of copies
as JPEG of quality 50, all tiles, 94 % or more of metal and wood, 5 to 84 % of ceramic, concrete, leather and cloth.

The same background with a new defect mostly counts as the same image: 83 % at 64x64 px, 94 % at 64x192.
"""


class QualityFilter:
    """Judges images one after the other; of two that are the same, the first stays."""

    def __init__(self, training: Iterable[ImageArray] | None, counts: Mapping[RejectReason, int] | None = None):
        """Remember what the model was trained on.

        Args:
            training: images (H, W, 3) uint8, cut as for training; the sizes may differ, the part shown must not.
                From 30 on, what all parts of the product share is told from what is each one's own. None where
                images are drawn on training images: they are alike, and neither copies nor repeats are looked for.
            counts: of an interrupted pool, to count on from.
        """
        self.counts: Counter[RejectReason] = Counter(counts or {})
        """Images that were kept out, by reason."""
        self._compared = training is not None
        self._index = SimilarityIndex([thumbnail(image) for image in training or ()])
        self._trained = len(self._index)

    def judge(self, image: ImageArray, fault: RejectReason | None = None) -> RejectReason | None:
        """Why `image` (H, W, 3) is kept out, which is counted, or None where it is accepted, which is remembered.

        `fault` is what its maker knows to be wrong with it.
        """
        small = thumbnail(image)
        reason = fault or _nothing_to_see(image) or self._seen(small)
        if reason is None:
            self._index.add(small)
        else:
            self.counts[reason] += 1
        return reason

    def remember(self, image: ImageArray) -> None:
        """Add an image (H, W, 3) that was accepted before an interruption, without judging it again."""
        self._index.add(thumbnail(image))

    def _seen(self, small: Thumbnail) -> RejectReason | None:
        if not self._compared:
            return None
        same = self._index.similarities(small) >= SAME
        if same[: self._trained].any():
            return "copy"
        return "duplicate" if same.any() else None


def _nothing_to_see(image: ImageArray) -> RejectReason | None:
    grey: npt.NDArray[np.uint8] = np.asarray(Image.fromarray(image).convert("L"))
    if np.count_nonzero(grey < BLACK) >= 0.99 * grey.size:
        return "black"
    return "flat" if grey.std() < FLAT else None
