"""What the training loops of this folder share."""

from collections.abc import Callable

from torch.optim import Optimizer

OnStep = Callable[[int, dict[str, float]], None]
"""Called after every step with its number, from 1, and its values."""


def set_learning_rate(optimiser: Optimizer, rate: float) -> None:
    """The learning rate of the next step; a group of parameters may have a `share` of it."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("share", 1.0)
