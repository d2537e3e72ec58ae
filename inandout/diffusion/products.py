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


class _Large(torch.autograd.Function):
    """As `_Small` without the gradient of W, and without keeping W + s B A until then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, s: float) -> Tensor:
        ctx.save_for_backward(x, w, a, b)
        ctx.s = s
        return nf.linear(x, torch.addmm(w, b, a, alpha=s), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, a, b = ctx.saved_tensors
        dx = dy @ torch.addmm(w, b, a, alpha=ctx.s) if ctx.needs_input_grad[0] else None
        x, dy = x.flatten(0, -2), dy.flatten(0, -2)
        return dx, None, (dy @ (ctx.s * b)).t() @ x, dy.t() @ (x @ a.t()).mul_(ctx.s), None, None


class _Convolution(torch.autograd.Function):
    """x (N, in, H, W) by W (out, in, k, k), A (dim, in, k, k), B (out, dim).

    Between A and B there are `dim` channels, which convolutions are slow for (they take 16 at a time). So for the
    gradients each place of the kernel is a product of matrices, and only its few results are shifted.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, s: float, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, w, a, b)
        ctx.s, ctx.stride, ctx.padding = s, stride, padding
        return nf.conv2d(x, _merged_kernels(w, a, b, s), bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, a, b = ctx.saved_tensors
        stride, padding, (dim, channels, kernel, _) = ctx.stride, ctx.padding, a.shape
        dx = None
        if ctx.needs_input_grad[0]:
            merged = _merged_kernels(w, a, b, ctx.s)
            dx = conv2d_input(x.shape, merged, dy, stride, padding)  # type: ignore[no-untyped-call]
        rows, dy_rows = _rows(x), _rows(dy)
        d_inner = ((ctx.s * b).t() @ dy_rows.t()).view(dim, len(x), *dy.shape[2:])
        da = _seen_by_inputs(d_inner, x.shape[2:], kernel, stride, padding) @ rows
        da = da.view(kernel, kernel, dim, channels).flip(0, 1).permute(2, 3, 0, 1)
        places = a.permute(2, 3, 0, 1)
        products = (places.reshape(-1, channels) @ rows.t()).view(*places.shape[:3], len(x), *x.shape[2:])
        inner = _sum_at_outputs(products, dy.shape[2:], stride, padding)
        db = (inner.view(dim, -1) @ dy_rows).t().mul(ctx.s)
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


def _sum_at_outputs(v: Tensor, size: torch.Size, stride: int, padding: int) -> Tensor:
    """Products at inputs, by place in the kernel (kernel, kernel, dim, N, H, W), summed as a convolution does."""
    padded = nf.pad(v, [padding] * 4)
    total = v.new_zeros(*v.shape[2:4], *size)
    for i, row in enumerate(padded):
        for j, place in enumerate(row):
            total += place[:, :, i : i + stride * size[0] : stride, j : j + stride * size[1] : stride]
    return total
