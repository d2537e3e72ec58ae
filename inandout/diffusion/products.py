"""Adapted layers computed with fewer and larger products than peft's, to the same result: small bases train faster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from peft.tuners.lora.layer import Conv2d, Linear
from torch import Tensor, nn
from torch.nn import functional as nf

_ADAPTER = "default"


@contextmanager
def fewer_products(*models: nn.Module) -> Iterator[None]:
    """Within, small adapted layers multiply once, by W + s B A, and the B of 3x3 convolutions is a product of matrices.

    peft multiplies by W, A and B in turn, each with a gradient of its own, and takes every B for a convolution. On the
    embedded base an adapter is so nearly half of a step (benchmarks/README.md).
    """
    layers = [(layer, way) for model in models for layer in model.modules() if (way := _way(layer)) is not None]
    for layer, way in layers:
        layer.forward = partial(way, layer)
    try:
        yield
    finally:
        for layer, _ in layers:
            del layer.forward


def _way(layer: nn.Module) -> Callable[..., Tensor] | None:
    """How to compute a layer; None where peft's way is the one."""
    if not isinstance(layer, Linear | Conv2d):
        return None
    if isinstance(layer, Conv2d) and layer.base_layer.kernel_size != (1, 1):
        return _beside
    return _merged if _pays(layer) else None


def _pays(layer: Linear | Conv2d) -> bool:
    """Whether W + s B A costs less: each element then takes as many products for the gradient of W as W has numbers,
    in place of as many as A and B have forwards, and twice that backwards. 16 bits of W would round the adapter away.
    """
    weight = layer.base_layer.weight
    separate = 3 * (layer.lora_A[_ADAPTER].weight.numel() + layer.lora_B[_ADAPTER].weight.numel())
    return weight.dtype == torch.float32 and weight.numel() <= separate


def _merged(layer: Linear | Conv2d, x: Tensor) -> Tensor:
    """A linear layer, or a convolution of one pixel."""
    base, a, b = layer.base_layer, layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
    weight = torch.addmm(base.weight.flatten(1), b.flatten(1), a.flatten(1), alpha=layer.scaling[_ADAPTER])
    return nf.linear(x, weight, base.bias) if isinstance(layer, Linear) else _pixelwise(x, weight, base.bias)


def _beside(layer: Conv2d, x: Tensor) -> Tensor:
    """A convolution of several pixels, whose A is one, too."""
    b = layer.lora_B[_ADAPTER].weight.flatten(1) * layer.scaling[_ADAPTER]
    inner = layer.lora_A[_ADAPTER](x)
    added: Tensor = layer.base_layer(x) + _pixelwise(inner, b, None)
    return added


def _pixelwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of one pixel as a product of matrices; copies nothing where x (N, C, H, W) is channels-last."""
    return nf.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
