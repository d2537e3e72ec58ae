"""Fill a pool: make pictures until enough of them are good."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from inandout.data.images import Picture
from inandout.diffusion.sample.quality_filter import Gate, Reason
from inandout.errors import InputError

Make = Callable[[range], Iterable[tuple[Picture, Reason | None]]]
"""Makes the candidates of some numbers: a picture (H, W, 3) for each, in order, and its fault where one is known."""

SPARE = 20
"""Pictures that may be kept out beyond three times as many as are wanted."""


class TooManyRejectedError(InputError):
    """A model makes too few usable pictures."""

    def __init__(self, wanted: int, accepted: int, counts: Counter[Reason]):
        reasons = ", ".join(f"{times} {reason}" for reason, times in sorted(counts.items()))
        super().__init__(
            f"{counts.total()} of {counts.total() + accepted} generated pictures were of no use ({reasons}), more than "
            f"the {allowance(wanted)} allowed for {wanted} good ones; choose another alpha, other prompts or "
            f"another seed"
        )


def allowance(n: int) -> int:
    """How many pictures may be kept out of a pool of `n`; inpainting leaves half of the masks as they were."""
    return 3 * n + SPARE


def fill(n: int, make: Make, gate: Gate, batch_size: int, accepted: int = 0) -> Iterator[tuple[int, Picture]]:
    """Yield number and picture of candidates that pass the gate, in order, until there are `n` of them.

    Candidates have the numbers 0, 1, 2, ..., which decide their seeds. They are always made in whole blocks
    [k * batch_size, (k + 1) * batch_size), as the last bit of a picture depends on which ones it is made with. So the
    pictures are the same however often the pool was interrupted, and a larger pool begins with the smaller one.

    To go on with an interrupted pool, give a new gate that has the same training pictures, the counts as they were when
    the last accepted picture was yielded (`gate.counts` is then exactly of the candidates up to it), and remembers all
    accepted pictures in order. The next candidate is the one whose number is `accepted` plus the sum of the counts;
    those after the last accepted one that had been judged already are judged again, with the same result.

    Args:
        n: pictures wanted, those accepted before included.
        make: makes candidates; called for one block after the other, when it is needed.
        gate: says which are kept out, and counts them.
        batch_size: candidates in a block, at least 1.
        accepted: pictures accepted before an interruption.

    Raises:
        TooManyRejectedError: the pool cannot be filled with 4n + 20 candidates: more than 3n + 20 were kept out.
    """
    candidates = _candidates(make, accepted + gate.counts.total(), batch_size)
    while accepted < n:
        number, picture, fault = next(candidates)
        if gate.judge(picture, fault) is None:
            accepted += 1
            yield number, picture
        elif gate.counts.total() > allowance(n):
            raise TooManyRejectedError(n, accepted, gate.counts)


def _candidates(make: Make, first: int, batch_size: int) -> Iterator[tuple[int, Picture, Reason | None]]:
    """Number, picture and known fault of candidates from `first` on, without end, made in whole blocks."""
    for start in count(first - first % batch_size, batch_size):
        numbers = range(start, start + batch_size)
        for number, (picture, fault) in zip(numbers, make(numbers), strict=True):
            if number >= first:
                yield number, picture, fault
