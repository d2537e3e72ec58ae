"""Quality filter for generated images: rejects broken, black, flat and repeated images and training images."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from inandout.data.colour import blank_reason
from inandout.data.duplicates import SimilarityIndex, Thumbnail, thumbnail
from inandout.data.images import ImageArray

RejectReason = Literal["non-finite", "unchanged", "black", "flat", "duplicate", "copy"]
"""Why an image is rejected: NaN or infinity during sampling, no visible change inside the mask, (nearly) all black, one
tone, similar to an accepted image, or similar to a training image."""

MIN_SIMILARITY = 0.85
"""Similarity (`inandout.data.duplicates`) from which two images count as the same.

It is stricter than the 0.8 that groups photographs, because parts of one product resemble each other more than any two
photographs: a weave has the same thread in the same place on all of them. Measured with 0, 5 and 30 training images:

Different images: none of 3.1 million pairs of parts of one product (eight materials, 64x64, 64x192 and 96x96 px)
reaches it. The maximum is 0.84 (cloth, without training images to estimate the common structure), and 0.75 with 30
training images. On magnetic tiles (96x96 px, 891,000 pairs of different groups) the maximum of pairs that do show
different tiles is 0.77.

Copies that were flipped, brightened or darkened by 20 levels, changed in gamma (0.7, 1.5), passed through the VAE, or
passed through it with flip and brightness: all were found, on surfaces and tiles. Copies with noise of 4 levels: all
tiles and at least 89 % of most materials at 64x64 px, but 6 % of ceramic, whose structure is weaker than the noise.
JPEG copies of quality 50: all tiles, at least 94 % of metal and wood, 5 to 84 % of ceramic, concrete, leather and
cloth.

The same background with a new defect mostly counts as the same image: 83 % at 64x64 px, 94 % at 64x192."""


class QualityFilter:
    """Judges images one by one; the first of two similar images is kept."""

    def __init__(self, training: Iterable[ImageArray] | None, counts: Mapping[RejectReason, int] | None = None):
        """Remember the training images.

        Args:
            training: images (H, W, 3) uint8, cropped as for training; sizes may differ. From 30 images on, structure
                that all parts of the product share is ignored. None disables the search for copies and repeats, for
                images that are inpainted on training images and therefore resemble them.
            counts: rejections of an interrupted pool, from which counting continues.
        """
        self.counts: Counter[RejectReason] = Counter(counts or {})
        """Number of rejected images by reason."""
        self._finds_repeats = training is not None
        self._index = SimilarityIndex([thumbnail(image) for image in training or ()])
        self._training_count = len(self._index)

    def judge(self, image: ImageArray, fault: RejectReason | None = None) -> RejectReason | None:
        """Return the reason to reject `image` (H, W, 3), or None if it is accepted. Rejections are counted.

        Accepted images are remembered. `fault` is a reason that the generator already knows.
        """
        small = thumbnail(image)
        reason = fault or blank_reason(image) or self._repeat_reason(small)
        if reason is None:
            self._index.add(small)
        else:
            self.counts[reason] += 1
        return reason

    def remember(self, image: ImageArray) -> None:
        """Add an image (H, W, 3) that was accepted before an interruption, without judging it again."""
        self._index.add(thumbnail(image))

    def _repeat_reason(self, small: Thumbnail) -> RejectReason | None:
        if not self._finds_repeats:
            return None
        similar = self._index.similarities(small) >= MIN_SIMILARITY
        if similar[: self._training_count].any():
            return "copy"
        return "duplicate" if similar.any() else None
