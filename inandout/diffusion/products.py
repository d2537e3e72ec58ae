"""Adapted layers computed with fewer products than peft's, to the same result: small bases train faster.

peft multiplies by W, A and B in turn, each with a gradient of its own; on the embedded base an adapter is so nearly
half of a step (benchmarks/README.md). Here x is multiplied once, by W + s B A, and with dy for the gradient of
y = x (W + s B A)^T, those of the adapter are

    dA = s B^T dy^T x        dB = s dy^T x A^T

whose products are made in the order that takes fewest. In a convolution, the same holds for every place of the kernel.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora.layer import Conv2d, Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as nf
from torch.nn.grad import conv2d_input

_ADAPTER = "default"


@contextmanager
def fewer_products(*models: nn.Module) -> Iterator[None]:
    """Within, adapted layers are computed in the way of this file, but for those whose W has 16 bits, where W + s B A
    would round the adapter away."""
    adapted = [layer for model in models for layer in model.modules() if isinstance(layer, Linear | Conv2d)]
    layers = [layer for layer in adapted if layer.base_layer.weight.itemsize > 2]
    for layer in layers:
        spatial = isinstance(layer, Conv2d) and layer.base_layer.kernel_size != (1, 1)
        layer.forward = partial(_convolve if spatial else _multiply, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _multiply(layer: Linear | Conv2d, x: Tensor) -> Tensor:
    """A linear layer, or a convolution of one pixel, which copies nothing where x (N, C, H, W) is channels-last."""
    if isinstance(layer, Conv2d):
        return _product(layer, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return _product(layer, x)


def _product(layer: Linear | Conv2d, x: Tensor) -> Tensor:
    """Of x (..., in). Each row of x costs as many products as W has numbers for the gradient of W, from which those of
    A and B follow; without it, twice as many as A and B have."""
    base, a, b = layer.base_layer, layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
    weights = [weight.flatten(1) for weight in (base.weight, a, b)]
    way = _Small if base.weight.numel() <= 2 * (a.numel() + b.numel()) else _Large
    y: Tensor = way.apply(x, *weights, base.bias, layer.scaling[_ADAPTER])
    return y


def _convolve(layer: Conv2d, x: Tensor) -> Tensor:
    base, a, b = layer.base_layer, layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight.flatten(1)
    y: Tensor = _Convolution.apply(
        x, base.weight, a, b, base.bias, layer.scaling[_ADAPTER], base.stride[0], base.padding[0]
    )
    return y


class _Small(torch.autograd.Function):
    """x (..., in) by W (out, in), A (dim, in), B (out, dim), with the gradient of W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, s: float) -> Tensor:
        merged = torch.addmm(w, b, a, alpha=s)
        ctx.save_for_backward(x, merged, a, b)
        ctx.s = s
        return nf.linear(x, merged, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        dx = dy @ merged if ctx.needs_input_grad[0] else None
        dw = (dy.flatten(0, -2).t() @ x.flatten(0, -2)).mul_(ctx.s)
        return dx, None, b.t() @ dw, dw @ a.t(), None, None


class _Large(_Small):
    """As `_Small` without the gradient of W."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        dx = dy @ merged if ctx.needs_input_grad[0] else None
        x, dy = x.flatten(0, -2), dy.flatten(0, -2)
        da, db = (dy @ (ctx.s * b)).t() @ x, ((x @ a.t()).mul_(ctx.s).t() @ dy).t()
        return dx, None, da, db, None, None


class _Convolution(torch.autograd.Function):
    """x (N, in, H, W) by W (out, in, k, k), A (dim, in, k, k), B (out, dim).

    Between A and B there are `dim` channels, which convolutions are slow for (they take 16 at a time). So the gradient
    of A is a product of matrices.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, s: float, stride: int, padding: int
    ) -> Tensor:
        merged = _merged_kernels(w, a, b, s)
        ctx.save_for_backward(x, merged, a, b)
        ctx.s, ctx.stride, ctx.padding = s, stride, padding
        return nf.conv2d(x, merged, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        stride, padding, (dim, channels, kernel, _) = ctx.stride, ctx.padding, a.shape
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = conv2d_input(x.shape, merged, dy, stride, padding)  # type: ignore[no-untyped-call]
        inner = nf.conv2d(x, ctx.s * a, None, stride, padding)
        db = (_rows(inner).t() @ _rows(dy)).t()
        d_inner = ((ctx.s * b).t() @ _rows(dy).t()).view(dim, len(x), *dy.shape[2:])
        da = _seen_by_inputs(d_inner, x.shape[2:], kernel, stride, padding) @ _rows(x)
        da = da.view(kernel, kernel, dim, channels).flip(0, 1).permute(2, 3, 0, 1)
        return dx, None, da, db, None, None, None, None


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N * H * W, C)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _merged_kernels(w: Tensor, a: Tensor, b: Tensor, s: float) -> Tensor:
    """W + s B A, channels-last."""
    w, a = w.permute(0, 2, 3, 1), a.permute(0, 2, 3, 1)
    return torch.addmm(w.flatten(1), b, a.flatten(1), alpha=s).view(w.shape).permute(0, 3, 1, 2)


def _seen_by_inputs(v: Tensor, size: torch.Size, kernel: int, stride: int, padding: int) -> Tensor:
    """Values at outputs (dim, N, h, w) as each input meets them: (kernel * kernel * dim, N * H * W), the last place of
    the kernel first."""
    first = kernel - 1 - padding
    ends = [first + stride * side for side in v.shape[2:]]
    spread = v.new_zeros(*v.shape[:2], *(side + kernel - 1 for side in size))
    spread[:, :, first : ends[0] : stride, first : ends[1] : stride] = v
    windows = spread.unfold(2, kernel, 1).unfold(3, kernel, 1)
    return windows.permute(4, 5, 0, 1, 2, 3).reshape(kernel * kernel * len(v), -1)
