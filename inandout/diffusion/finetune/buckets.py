"""Aspect-ratio buckets: images of many shapes in a few sizes of about one area, so that they can share batches."""

import math
from collections.abc import Sequence

from inandout.data.geometry import Geometry
from inandout.errors import InputError


def bucket_of(width: int, height: int, area: int, multiple: int) -> Geometry:
    """The size that a width x height image is cut and resized to for training.

    Both sides are multiples of `multiple` and cannot grow without more than `area` pixels; of all such sizes it is the
    one whose aspect is nearest to the image's, and of two the larger. What sticks out is cut off, the same on both
    sides.

    Raises:
        InputError: `area` has no room for even one square of `multiple` pixels.
    """
    if area < multiple * multiple:
        raise InputError(
            f"an area of {area} pixels holds no {multiple}x{multiple} image, the smallest this base can work on; "
            "give a larger width and height"
        )
    sizes = [
        (w, h)
        for w in range(multiple, area // multiple + 1, multiple)
        for h in range(multiple, area // w + 1, multiple)
        if (w + multiple) * h > area and w * (h + multiple) > area
    ]
    wanted = math.log(width / height)
    best = min(sizes, key=lambda size: (round(abs(math.log(size[0] / size[1]) - wanted), 6), -size[0] * size[1]))
    return Geometry.model_construct(width=best[0], height=best[1], fit="crop")


def batches(sizes: Sequence[tuple[int, int]], order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Part `order`, indices into `sizes` that may repeat, into batches of one size each; they keep their order.

    A batch is complete when its last image has come; the rest of every size comes at the end, smaller.
    """
    waiting: dict[tuple[int, int], list[int]] = {}
    complete = []
    for index in order:
        batch = waiting.setdefault(sizes[index], [])
        batch.append(index)
        if len(batch) == batch_size:
            complete.append(waiting.pop(sizes[index]))
    return complete + list(waiting.values())
