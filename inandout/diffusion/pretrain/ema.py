"""Exponential moving average (EMA) of weights, which generates better images than the last weights."""

import torch
from torch import Tensor, nn

_PREFIX = "average."


class ExponentialMovingAverage:
    """EMA of every entry of a module's state dict."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        """Start from the module's weights; the decay rises as (1 + step) / (10 + step) up to `decay`."""
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Update the average with the weights after `step`, from 1."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            average = self.values[name]
            if average.is_floating_point():
                average.lerp_(value, weight)
            else:
                average.copy_(value)

    def packed(self) -> dict[str, Tensor]:
        """Return the averages as `average.<name>`."""
        return {_PREFIX + name: value for name, value in self.values.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore the result of `packed`; other entries of `tensors` are ignored."""
        for name in self.values:
            self.values[name] = tensors[_PREFIX + name].clone(memory_format=torch.preserve_format)
