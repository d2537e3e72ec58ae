"""Fill a pool: make images until enough of them are good."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from inandout.data.images import ImageArray
from inandout.diffusion.sample.quality_filter import QualityFilter, RejectReason
from inandout.errors import InputError

Generator = Callable[[range], Iterable[tuple[ImageArray, RejectReason | None]]]
"""Makes the candidates of some numbers: an image (H, W, 3) for each, in order, and its fault where one is known."""

EXTRA_REJECTIONS = 20
"""Images that may be kept out beyond three times as many as are wanted."""


class TooManyRejectedError(InputError):
    """A model makes too few usable images."""

    def __init__(self, wanted: int, accepted: int, counts: Counter[RejectReason]):
        reasons = ", ".join(f"{times} {reason}" for reason, times in sorted(counts.items()))
        super().__init__(
            f"{counts.total()} of {counts.total() + accepted} generated images were of no use ({reasons}), more than "
            f"the {max_rejections(wanted)} allowed for {wanted} good ones; choose another alpha, other prompts or "
            f"another seed"
        )


def max_rejections(n: int) -> int:
    """How many images may be kept out of a pool of `n`; inpainting leaves half of the masks as they were."""
    return 3 * n + EXTRA_REJECTIONS


def rejection_sample(
    n: int, generator: Generator, quality_filter: QualityFilter, batch_size: int, accepted: int = 0
) -> Iterator[tuple[int, ImageArray]]:
    """Yield number and image of candidates that pass the gate, in order, until there are `n` of them.

    Candidates have the numbers 0, 1, 2, ..., which decide their seeds. They are always made in whole blocks
    [k * batch_size, (k + 1) * batch_size), as the last bit of an image depends on which ones it is made with. So the
    images are the same however often the pool was interrupted, and a larger pool begins with the smaller one.

    To go on with an interrupted pool, give a new filter that has the same training images, the counts as they were when
    the last accepted image was yielded (`quality_filter.counts` is then exactly of the candidates up to it), and
    remembers all accepted images in order. The next candidate is the one whose number is `accepted` plus the sum of the
    counts; those after the last accepted one that had been judged already are judged again, with the same result.

    Args:
        n: images wanted, those accepted before included.
        generator: makes candidates; called for one block after the other, when it is needed.
        quality_filter: says which are kept out, and counts them.
        batch_size: candidates in a block, at least 1.
        accepted: images accepted before an interruption.

    Raises:
        TooManyRejectedError: the pool cannot be filled with 4n + 20 candidates: more than 3n + 20 were kept out.
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
    """Number, image and known fault of candidates from `first` on, without end, made in whole blocks."""
    for start in count(first - first % batch_size, batch_size):
        numbers = range(start, start + batch_size)
        for number, (image, fault) in zip(numbers, generator(numbers), strict=True):
            if number >= first:
                yield number, image, fault
