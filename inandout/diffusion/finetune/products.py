"""Adapted layers computed with fewer products than peft's, to the same result: small bases train faster.

peft multiplies by W, A and B in turn, each with a gradient of its own; on the embedded base an adapter is so nearly
half of a step (benchmarks/README.md). Here x is multiplied once, by W + s B A, and with dy for the gradient of
y = x (W + s B A)^T, those of the adapter are

    dA = s B^T dy^T x        dB = s dy^T x A^T

whose products are made in the order that takes fewest. In a convolution, the same holds for every place of the kernel,
but where there are so few pixels that W, A and B apart are quicker (`convolutions.py`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.upsampling import Upsample2D
from peft.tuners.lora.layer import Conv2d, Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as nf

from inandout.diffusion.finetune.attention import attention
from inandout.diffusion.finetune.convolutions import convolution, upsampled_convolution
from inandout.diffusion.finetune.norms import group_norm

_ADAPTER = "default"


@contextmanager
def fewer_products(*models: nn.Module) -> Iterator[None]:
    """Within, adapted layers are computed in the way of this file, and group norms, attention and convolutions of what
    is upsampled in ways of their own. Where weights have 16 bits, only attention is: W + s B A would round the adapter
    away."""
    modules = [module for model in models for module in model.modules()]
    forwards = {module: forward for module in modules if (forward := _forward(module)) is not None}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in forwards:
            del module.forward


def _forward(module: nn.Module) -> Callable[..., Tensor] | None:
    """How a module is computed here; None where that stays as it was."""
    if isinstance(module, nn.GroupNorm) and module.weight.itemsize > 2:
        return group_norm(module)
    if isinstance(module, Attention):
        return attention(module)
    layer = getattr(module, "conv", None) if isinstance(module, Upsample2D) else module
    if not isinstance(layer, Linear | Conv2d) or layer.base_layer.weight.itemsize <= 2:
        return None
    base, s = layer.base_layer, layer.scaling[_ADAPTER]
    a, b = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
    if isinstance(module, Upsample2D):
        return upsampled_convolution(module, base, a, b, s)
    if isinstance(layer, Conv2d) and base.kernel_size != (1, 1):
        return convolution(base, a, b, s)
    return _product(base, a, b, s)


def _product(base: nn.Linear | nn.Conv2d, a: Tensor, b: Tensor, s: float) -> Callable[[Tensor], Tensor]:
    """Each row of x costs as many products as W has numbers for the gradient of W, from which those of A and B follow;
    without it, twice as many as A and B have."""
    way, w = _Small if base.weight.numel() <= 2 * (a.numel() + b.numel()) else _Large, base.weight.flatten(1)

    def linear(x: Tensor) -> Tensor:
        y: Tensor = way.apply(x, w, a.flatten(1), b.flatten(1), base.bias, s)
        return y

    def pixelwise(x: Tensor) -> Tensor:
        return linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # copies nothing where x (N, C, H, W) is channels-last

    return pixelwise if isinstance(base, nn.Conv2d) else linear


class _Small(torch.autograd.Function):
    """x (..., in) by W (out, in), A (dim, in), B (out, dim), with the gradient of W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, s: float) -> Tensor:
        merged = torch.addmm(w, b, a, alpha=s)
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
        dw = torch.addmm(merged, dy.t(), x, beta=0, alpha=ctx.s)
        return dx, None, b.t() @ dw, dw @ a.t(), None, None


class _Large(torch.autograd.Function):
    """As `_Small` without the gradient of W, and without keeping W + s B A until then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, s: float) -> Tensor:
        rows = x.flatten(0, -2)
        ctx.save_for_backward(rows, w, a, b)
        ctx.s, ctx.size = s, x.shape
        return nf.linear(rows, torch.addmm(w, b, a, alpha=s), bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, a, b = ctx.saved_tensors
        dy = dy.flatten(0, -2)
        dx = (dy @ torch.addmm(w, b, a, alpha=ctx.s)).view(ctx.size) if ctx.needs_input_grad[0] else None
        da = torch.addmm(a, (dy @ b).t(), x, beta=0, alpha=ctx.s)
        db = torch.addmm(b, dy.t(), x @ a.t(), beta=0, alpha=ctx.s)
        return dx, None, da, db, None, None
