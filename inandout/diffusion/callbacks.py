"""Callback and learning-rate setter of the training loops in this folder."""

from collections.abc import Callable

from torch.optim import Optimizer

OnStep = Callable[[int, dict[str, float]], None]
"""Called after every step with its number, from 1, and the logged values."""


def set_learning_rate(optimiser: Optimizer, rate: float) -> None:
    """Set the learning rate of the next step, multiplied by the `share` of each parameter group (default 1)."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("share", 1.0)
