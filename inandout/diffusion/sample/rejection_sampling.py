"""Rejection sampling: generate images until enough of them pass the quality filter."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from inandout.data.images import ImageArray
from inandout.diffusion.sample.quality_filter import QualityFilter, RejectReason
from inandout.errors import InputError

Generator = Callable[[range], Iterable[tuple[ImageArray, RejectReason | None]]]
"""Generates the candidates of a range of numbers, in order: an image (H, W, 3) each, and its fault if one is known."""

EXTRA_REJECTIONS = 20
"""Number of rejections that are allowed in addition to three per wanted image."""


class TooManyRejectedError(InputError):
    """A model generates too few usable images."""

    def __init__(self, wanted: int, accepted: int, counts: Counter[RejectReason]):
        reasons = ", ".join(f"{times} {reason}" for reason, times in sorted(counts.items()))
        super().__init__(
            f"{counts.total()} of {counts.total() + accepted} generated images were rejected ({reasons}), more than "
            f"the {max_rejections(wanted)} allowed for {wanted} wanted images; change alpha, prompts or seed"
        )


def max_rejections(n: int) -> int:
    """Return the maximum number of rejected images for a pool of `n`; inpainting leaves half of the masks unchanged."""
    return 3 * n + EXTRA_REJECTIONS


def rejection_sample(
    n: int, generator: Generator, quality_filter: QualityFilter, batch_size: int, accepted: int = 0
) -> Iterator[tuple[int, ImageArray]]:
    """Yield number and image of candidates that pass the filter, in order, until there are `n`.

    Candidates have the numbers 0, 1, 2, ..., which determine their seeds. They are generated in complete blocks [k *
    batch_size, (k + 1) * batch_size), because the last bit of an image depends on the batch. An interrupted pool
    therefore gets the same images, and a larger pool begins with the smaller one.

    To resume a pool, pass a new filter with the same training images and the counts at the last accepted image
    (`quality_filter.counts` then covers exactly the candidates up to it), which remembers all accepted images in order.
    The next candidate has the number `accepted` plus the sum of the counts. Candidates that were judged after the last
    accepted one are judged again, with the same result.

    Args:
        n: number of wanted images, including `accepted`.
        generator: generates candidates; called for one block at a time, on demand.
        quality_filter: rejects candidates and counts the rejections.
        batch_size: candidates per block, at least 1.
        accepted: number of images accepted before an interruption.

    Raises:
        TooManyRejectedError: more than 3n + 20 candidates were rejected.
    """
    candidates = _candidates(generator, accepted + quality_filter.counts.total(), batch_size)
    while accepted < n:
        number, image, fault = next(candidates)
        if quality_filter.judge(image, fault) is None:
            accepted += 1
            yield number, image
        elif quality_filter.counts.total() > max_rejections(n):
            raise TooManyRejectedError(n, accepted, quality_filter.counts)


def _candidates(
    generator: Generator, first: int, batch_size: int
) -> Iterator[tuple[int, ImageArray, RejectReason | None]]:
    """Yield number, image and known fault of candidates from `first` on, endlessly, generated in complete blocks."""
    for start in count(first - first % batch_size, batch_size):
        numbers = range(start, start + batch_size)
        for number, (image, fault) in zip(numbers, generator(numbers), strict=True):
            if number >= first:
                yield number, image, fault
