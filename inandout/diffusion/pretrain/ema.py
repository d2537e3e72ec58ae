"""Exponential running averages of weights, which make better images than the last weights do."""

import torch
from torch import Tensor, nn

_PREFIX = "average."


class ExponentialMovingAverage:
    """The average of every entry of a module's state."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        """Begin with the weights as they are; `decay` is reached slowly, as (1 + step) / (10 + step)."""
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the weights after `step`, from 1."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            average = self.values[name]
            if average.is_floating_point():
                average.lerp_(value, share)
            else:
                average.copy_(value)

    def packed(self) -> dict[str, Tensor]:
        """The averages as `average.<name>`."""
        return {_PREFIX + name: value for name, value in self.values.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `packed` gave; other entries of `tensors` are ignored."""
        for name in self.values:
            self.values[name] = tensors[_PREFIX + name].clone(memory_format=torch.preserve_format)
