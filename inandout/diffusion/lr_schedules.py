"""Learning-rate schedules."""

import math


def warm_up_and_decay(step: int, steps: int, highest: float, warm_up: int = 100) -> float:
    """Return the learning rate of step 1..`steps`: linear warm-up to `highest`, then half a cosine to 0."""
    if step <= warm_up:
        return highest * step / warm_up
    done = (step - warm_up) / max(steps - warm_up, 1)
    return highest * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def hold_and_decay(step: int, steps: int, highest: float, warm_up: int = 200, decay_share: float = 0.3) -> float:
    """Return the learning rate of step 1..`steps`: linear warm-up to `highest`, constant, then half a cosine to 0.

    Before the decay the rate does not depend on `steps`, so a training can be extended. If the decay begins before the
    warm-up ends, the rate is the product of both.
    """
    begin = steps * (1 - decay_share)
    decayed = max(step - begin, 0.0) / (steps - begin)
    return highest * min(step / warm_up, 1.0) * 0.5 * (1 + math.cos(math.pi * decayed))


def cosine_with_restarts(step: int, steps: int, highest: float, restarts: int) -> float:
    """Return the learning rate of step 1..`steps`: `restarts` half cosines, each from `highest` to 0."""
    progress = (step - 1) / steps
    return highest * 0.5 * (1 + math.cos(math.pi * (restarts * progress % 1)))
