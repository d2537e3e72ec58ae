"""The learning rate of a step."""

import math


def warm_up_and_decay(step: int, steps: int, highest: float, warm_up: int = 100) -> float:
    """Learning rate of step 1..`steps`: linear up to `highest`, then a half cosine down to nothing."""
    if step <= warm_up:
        return highest * step / warm_up
    done = (step - warm_up) / max(steps - warm_up, 1)
    return highest * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def hold_and_decay(step: int, steps: int, highest: float, warm_up: int = 200, decay_share: float = 0.3) -> float:
    """Learning rate of step 1..`steps`: linear up to `highest`, constant, a half cosine to nothing at the end.

    Until the decay begins it does not depend on `steps`, so that a training can be made longer. Where the decay begins
    before the warm-up ends, the rate is the product of both.
    """
    begin = steps * (1 - decay_share)
    decayed = max(step - begin, 0.0) / (steps - begin)
    return highest * min(step / warm_up, 1.0) * 0.5 * (1 + math.cos(math.pi * decayed))


def cosine_with_restarts(step: int, steps: int, highest: float, restarts: int) -> float:
    """Learning rate of step 1..`steps`: `restarts` half cosines from `highest` to nothing, one after the other."""
    progress = (step - 1) / steps
    return highest * 0.5 * (1 + math.cos(math.pi * (restarts * progress % 1)))
