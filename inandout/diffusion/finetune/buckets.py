"""Aspect-ratio buckets: resize images of many shapes to a few sizes of similar area, so that they can share batches."""

import math
from collections.abc import Sequence

from inandout.data.config import Geometry
from inandout.errors import InputError


def bucket_of(width: int, height: int, area: int, multiple: int) -> Geometry:
    """Return the size to which a width x height image is cropped and resized for training.

    Both sides are multiples of `multiple`, and neither can grow without exceeding `area` pixels. Of these sizes the one
    with the aspect ratio nearest to the image's is chosen, the larger one on a tie. The crop is centred.

    Raises:
        InputError: `area` is smaller than one square of `multiple` pixels.
    """
    if area < multiple * multiple:
        raise InputError(
            f"an area of {area} pixels is too small for a {multiple}x{multiple} image, the minimum of this base; "
            "increase width and height"
        )
    sizes = [
        (w, h)
        for w in range(multiple, area // multiple + 1, multiple)
        for h in range(multiple, area // w + 1, multiple)
        if (w + multiple) * h > area and w * (h + multiple) > area
    ]
    log_aspect = math.log(width / height)
    best = min(sizes, key=lambda size: (round(abs(math.log(size[0] / size[1]) - log_aspect), 6), -size[0] * size[1]))
    return Geometry.model_construct(width=best[0], height=best[1], fit="crop")


def batches(sizes: Sequence[tuple[int, int]], order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Split `order`, indices into `sizes` that may repeat, into batches of images of one size.

    A batch is emitted when it is full; incomplete batches follow at the end.
    """
    waiting: dict[tuple[int, int], list[int]] = {}
    complete = []
    for index in order:
        batch = waiting.setdefault(sizes[index], [])
        batch.append(index)
        if len(batch) == batch_size:
            complete.append(waiting.pop(sizes[index]))
    return complete + list(waiting.values())
