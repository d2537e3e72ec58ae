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
from itertools import product
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
        layer.forward = partial(_convolve, layer, _turned(layer)) if spatial else partial(_multiply, layer)
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


def _convolve(layer: Conv2d, turned: Tensor | None, x: Tensor) -> Tensor:
    base, a, b = layer.base_layer, layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight.flatten(1)
    y: Tensor = _Convolution.apply(
        x, base.weight, turned, a, b, base.bias, layer.scaling[_ADAPTER], base.stride[0], base.padding[0]
    )
    return y


def _turned(layer: Conv2d) -> Tensor | None:
    """W (in, out, k, k), channels-last: dy convolved by it is the gradient of x. There is none with strides, and none
    on a GPU, whose memory is dear."""
    w: Tensor = layer.base_layer.weight.detach()
    if layer.base_layer.stride != (1, 1) or w.device.type != "cpu":
        return None
    return w.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)


class _Small(torch.autograd.Function):
    """x (..., in) by W (out, in), A (dim, in), B (out, dim), with the gradient of W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, s: float) -> Tensor:
        b = s * b
        merged = torch.addmm(w, b, a)
        rows = x.flatten(0, -2)
        ctx.save_for_backward(rows, merged, a, b)
        ctx.s, ctx.size = s, x.shape
        return nf.linear(rows, merged, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        dy = dy.flatten(0, -2)
        dx = (dy @ merged).view(ctx.size) if ctx.needs_input_grad[0] else None
        dw = dy.t() @ x
        return dx, None, b.t() @ dw, (dw @ a.t()).mul_(ctx.s), None, None


class _Large(torch.autograd.Function):
    """As `_Small` without the gradient of W, and without keeping W + s B A until then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, s: float) -> Tensor:
        b = s * b
        rows = x.flatten(0, -2)
        ctx.save_for_backward(rows, w, a, b)
        ctx.s, ctx.size = s, x.shape
        return nf.linear(rows, torch.addmm(w, b, a), bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, a, b = ctx.saved_tensors
        dy = dy.flatten(0, -2)
        dx = (dy @ torch.addmm(w, b, a)).view(ctx.size) if ctx.needs_input_grad[0] else None
        return dx, None, (dy @ b).t() @ x, ((x @ a.t()).mul_(ctx.s).t() @ dy).t(), None, None


class _Convolution(torch.autograd.Function):
    """x (N, in, H, W) by W (out, in, k, k), A (dim, in, k, k), B (out, dim).

    PyTorch's backward convolution is slower than a forward one, so with `turned` that computes the gradient of x. The
    gradient of A is a product of matrices, as convolutions are slow for the few channels between A and B.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        turned: Tensor | None,
        a: Tensor,
        b: Tensor,
        bias: Tensor | None,
        s: float,
        stride: int,
        padding: int,
    ) -> Tensor:
        ctx.s, ctx.stride, ctx.padding = s, stride, padding
        a, b = a.contiguous(memory_format=torch.channels_last), s * b
        ctx.save_for_backward(x, w, turned, a, b)
        return nf.conv2d(x, _merged(w, a, b), bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, turned, a, b = ctx.saved_tensors
        stride, padding, (dim, channels, kernel, _) = ctx.stride, ctx.padding, a.shape
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = None
        if ctx.needs_input_grad[0] and turned is not None:
            dx = nf.conv2d(dy, _merged_turned(turned, a, b), None, 1, kernel - 1 - padding)
        elif ctx.needs_input_grad[0]:
            dx = conv2d_input(x.shape, _merged(w, a, b), dy, stride, padding)  # type: ignore[no-untyped-call]
        inner = _inner(x, a, dy.shape[2:], stride, padding)
        db = (inner.t() @ _rows(dy)).t().mul(ctx.s)
        d_inner = (b.t() @ _rows(dy).t()).view(dim, len(x), *dy.shape[2:])
        da = _seen_by_inputs(d_inner, x.shape[2:], kernel, stride, padding) @ _rows(x)
        da = da.view(kernel, kernel, dim, channels).flip(0, 1).permute(2, 3, 0, 1)
        return dx, None, None, da, db, None, None, None, None


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N * H * W, C)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _merged(w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """W + s B A, channels-last, of an A that is channels-last and of s B."""
    return _kernels(torch.addmm(_rows(w).view(len(w), -1), b, _rows(a).view(len(a), -1)), w.shape)


def _merged_turned(turned: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The same, turned."""
    places = a.flip(2, 3).permute(1, 2, 3, 0).reshape(-1, len(a))
    return _kernels(torch.addmm(_rows(turned), places, b.t()), turned.shape)


def _kernels(rows: Tensor, shape: torch.Size) -> Tensor:
    """Numbers in the order of channels-last as (out, in, k, k)."""
    return rows.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)


def _inner(x: Tensor, a: Tensor, size: torch.Size, stride: int, padding: int) -> Tensor:
    """A's convolution of x, rows of `dim` channels.

    A convolution computes 16 channels at a time. So, if they fit, four neighbouring outputs are channels of one, by a
    kernel larger by one: 2.25 times fewer products for the 4 channels of kernels of 3.
    """
    dim, channels, kernel, _ = a.shape
    if stride != 1 or 4 * dim > 16 or any(side % 2 for side in size):
        return _rows(nf.conv2d(x, a, None, stride, padding))
    four = a.new_zeros(2, 2, dim, kernel + 1, kernel + 1, channels)
    for i, j in product(range(2), repeat=2):
        four[i, j, :, i : i + kernel, j : j + kernel] = a.permute(0, 2, 3, 1)
    y = nf.conv2d(x, four.flatten(0, 2).permute(0, 3, 1, 2), None, 2, padding)
    height, width = y.shape[2:]
    return _rows(y).view(len(x), height, width, 2, 2, dim).transpose(2, 3).reshape(-1, dim)


def _seen_by_inputs(v: Tensor, size: torch.Size, kernel: int, stride: int, padding: int) -> Tensor:
    """Values at outputs (dim, N, h, w) as each input meets them: (kernel * kernel * dim, N * H * W), the last place of
    the kernel first."""
    first = kernel - 1 - padding
    ends = [first + stride * side for side in v.shape[2:]]
    spread = v.new_zeros(*v.shape[:2], *(side + kernel - 1 for side in size))
    spread[:, :, first : ends[0] : stride, first : ends[1] : stride] = v
    windows = spread.unfold(2, kernel, 1).unfold(3, kernel, 1)
    return windows.permute(4, 5, 0, 1, 2, 3).reshape(kernel * kernel * len(v), -1)
