"""Adapted convolutions with larger kernels than a pixel; the why is in `products.py`.

W is (out, in, k, k), A (dim, in, k, k), B (out, dim, 1, 1), and s scales B A; they are computed channels-last.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as nf
from torch.nn.grad import conv2d_input


def convolution(base: nn.Conv2d, a: Tensor, b: Tensor, s: float) -> Callable[[Tensor], Tensor]:
    """Of x (N, in, H, W)."""
    w, stride, padding = base.weight, base.stride[0], base.padding[0]
    turned = _turned(w) if stride == 1 else None

    def forward(x: Tensor) -> Tensor:
        y: Tensor = _Convolution.apply(x, w, turned, a, b.flatten(1), base.bias, s, stride, padding)
        return y

    return forward


def upsampled_convolution(
    upsampler: Upsample2D, base: nn.Conv2d, a: Tensor, b: Tensor, s: float
) -> Callable[..., Tensor] | None:
    """Of x (N, in, H, W) made twice as large by nearest neighbours: (N, out, 2 H, 2 W); None for other kernels than
    of 3.

    The four outputs beside an input see no more than 2x2 inputs. So they are as many channels of a convolution of x by
    kernels of 2, whose weights are sums of those of 3: 16 products where 36 are made of what is upsampled.
    """
    if base.kernel_size != (3, 3) or upsampler.norm is not None or not upsampler.interpolate:
        return None
    w = _phases(base.weight.detach()).contiguous(memory_format=torch.channels_last)
    turned, bias = _turned(w), None if base.bias is None else base.bias.repeat(4)

    def forward(x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        if output_size is not None and tuple(output_size) != (2 * x.shape[2], 2 * x.shape[3]):
            return Upsample2D.forward(upsampler, x, output_size)
        four_b = torch.kron(b.new_ones(4).diag(), b.flatten(1))
        y = _Convolution.apply(x, w, turned, _phases(a), four_b, bias, s, 1, 1)
        interleaved: Tensor = _Interleaved.apply(y)
        return interleaved

    return forward


def _turned(w: Tensor) -> Tensor | None:
    """(in, out, k, k): dy convolved by it is the gradient of x without strides. There is none on a GPU, whose memory is
    dear."""
    if w.device.type != "cpu":
        return None
    return w.detach().flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)


class _Convolution(torch.autograd.Function):
    """x by W + s B A, B (out, dim).

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
        a = a.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, w, turned, a, b)
        return nf.conv2d(x, _merged(w, a, b, s), bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, turned, a, b = ctx.saved_tensors
        s, stride, padding, (dim, channels, kernel, _) = ctx.s, ctx.stride, ctx.padding, a.shape
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = None
        if ctx.needs_input_grad[0] and turned is not None:
            dx = nf.conv2d(dy, _merged_turned(turned, a, b, s), None, 1, kernel - 1 - padding)
        elif ctx.needs_input_grad[0]:
            dx = conv2d_input(x.shape, _merged(w, a, b, s), dy, stride, padding)  # type: ignore[no-untyped-call]
        inner = _inner(x, a, dy.shape[2:], stride, padding)
        db = torch.addmm(b.t(), inner.t(), _rows(dy), beta=0, alpha=s).t()
        d_inner = torch.addmm(b[:1].t(), b.t(), _rows(dy).t(), beta=0, alpha=s)
        seen = _seen_by_inputs(d_inner.view(dim, len(x), *dy.shape[2:]), x.shape[2:], kernel, stride, padding)
        da = (seen @ _rows(x)).view(kernel, kernel, dim, channels).flip(0, 1).permute(2, 3, 0, 1)
        return dx, None, None, da, db, None, None, None, None


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N * H * W, C)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _merged(w: Tensor, a: Tensor, b: Tensor, s: float) -> Tensor:
    """W + s B A, of an A that is channels-last."""
    return _kernels(torch.addmm(_rows(w).view(len(w), -1), b, _rows(a).view(len(a), -1), alpha=s), w.shape)


def _merged_turned(turned: Tensor, a: Tensor, b: Tensor, s: float) -> Tensor:
    """The same, turned."""
    places = a.flip(2, 3).permute(1, 2, 3, 0).reshape(-1, len(a))
    return _kernels(torch.addmm(_rows(turned), places, b.t(), alpha=s), turned.shape)


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
    down, right, *place = four.stride()
    strides = (down + place[1], right + place[2], *place)
    four.as_strided((2, 2, dim, kernel, kernel, channels), strides).copy_(a.permute(0, 2, 3, 1))
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


def _phases(w: Tensor) -> Tensor:
    """Kernels of 3 of an upsampled x as those of 2 of x, (4 * out, in, 2, 2): for the upper left output beside an
    input, the upper right, the lower left, the lower right."""
    sums = w.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
    return torch.einsum("iak,jbl,ockl->ijocab", sums, sums, w).flatten(0, 2)


class _Interleaved(torch.autograd.Function):
    """Phases (N, 4 * C, H + 1, W + 1) as the picture (N, C, 2 H, 2 W) that they are of."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        phases = y.permute(0, 2, 3, 1).contiguous()
        n, height, width, channels = ctx.size = phases.shape
        picture = _picture(phases).reshape(n, 2 * height - 2, 2 * width - 2, channels // 4)
        return picture.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        phases = dy.new_zeros(ctx.size)
        picture = _picture(phases)
        picture.copy_(dy.permute(0, 2, 3, 1).reshape(picture.shape))
        return phases.permute(0, 3, 1, 2)


def _picture(phases: Tensor) -> Tensor:
    """(N, H + 1, W + 1, 4 * C) seen as (N, H, 2, W, 2, C): the lower phases lie one row further, the right ones one
    column."""
    n, height, width, channels = phases.shape
    picture, down, right, _ = phases.stride()
    strides = (picture, down, down + channels // 2, right, right + channels // 4, 1)
    return phases.as_strided((n, height - 1, 2, width - 1, 2, channels // 4), strides)
