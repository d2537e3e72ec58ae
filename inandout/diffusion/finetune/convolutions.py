"""Adapted convolutions with larger kernels than a pixel; the why is in `products.py`.

W is (out, in, k, k), A (dim, in, k, k), B (out, dim, 1, 1), and s scales B A; they are computed channels-last.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as nf
from torch.nn.grad import conv2d_input

_PACKS = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
"""Whether PyTorch was built with oneDNN."""


def convolution(base: nn.Conv2d, a: Tensor, b: Tensor, s: float) -> Callable[[Tensor], Tensor]:
    """Of x (N, in, H, W)."""
    kernels = _Kernels(base.weight.detach(), base.stride[0], int(base.padding[0]))

    def forward(x: Tensor) -> Tensor:
        return _convolution(x, kernels, a, b.flatten(1), base.bias, s)

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
    kernels = _Kernels(_phases(base.weight.detach()).contiguous(memory_format=torch.channels_last), 1, 1)
    bias = None if base.bias is None else base.bias.repeat(4)

    def forward(x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        if output_size is not None and tuple(output_size) != (2 * x.shape[2], 2 * x.shape[3]):
            return Upsample2D.forward(upsampler, x, output_size)
        four_b = torch.kron(b.new_ones(4).diag(), b.flatten(1))
        interleaved: Tensor = _Interleaved.apply(_convolution(x, kernels, _phases(a), four_b, bias, s))
        return interleaved

    return forward


class _Frozen:
    """A convolution by W alone, without strides. oneDNN has an order of its own for kernels: they are brought into it
    once, as by `torch.compile` when it freezes weights, not in every step."""

    def __init__(self, w: Tensor, padding: int) -> None:
        self.place = [padding] * 2, [1, 1], [1, 1], 1
        packs = w.dtype == torch.float32 and _PACKS
        self.w = torch.ops.mkldnn._reorder_convolution_weight(w, *self.place) if packs else w

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self.w.is_mkldnn:
            return nf.conv2d(x, self.w, bias, 1, self.place[0])
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self.w, bias, *self.place, "none", [], "")
        return y


class _Kernels:
    """W, its stride and padding, and what is made of it once, when it is needed first. Turned, (in, out, k, k), it is
    what dy is convolved by for the gradient of x."""

    def __init__(self, w: Tensor, stride: int, padding: int) -> None:
        self.w, self.stride, self.padding = w, stride, padding
        self.turned_padding = w.shape[2] - 1 - padding

    @property
    def turns(self) -> bool:
        """Not with strides, nor on a GPU, whose memory is dear."""
        return self.stride == 1 and self.w.device.type == "cpu"

    @cached_property
    def turned(self) -> Tensor:
        return _turned(self.w)

    @cached_property
    def alone(self) -> _Frozen:
        return _Frozen(self.w, self.padding)

    @cached_property
    def turned_alone(self) -> _Frozen:
        return _Frozen(_turned(self.w), self.turned_padding)


def _turned(w: Tensor) -> Tensor:
    return w.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _convolution(x: Tensor, kernels: _Kernels, a: Tensor, b: Tensor, bias: Tensor | None, s: float) -> Tensor:
    """x by W + s B A, B (out, dim). To add them takes a pass over W; to compute them apart, one over the k * k * dim
    values of A's outputs that every input meets. The shorter one is taken."""
    dim, channels, kernel, _ = a.shape
    apart = kernels.turns and kernels.w.numel() > dim * kernel**2 * x.numel() // channels
    way = _Apart if apart else _Merged
    y: Tensor = way.apply(x, kernels, a.contiguous(memory_format=torch.channels_last), b, bias, s)
    return y


class _Merged(torch.autograd.Function):
    """x by W + s B A.

    PyTorch's backward convolution is slower than a forward one, so where W can be turned that computes the gradient of
    x.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernels: _Kernels, a: Tensor, b: Tensor, bias: Tensor | None, s: float
    ) -> Tensor:  # fmt: skip
        ctx.kernels, ctx.s = kernels, s
        ctx.save_for_backward(x, a, b)
        return nf.conv2d(x, _merged(kernels.w, a, b, s), bias, kernels.stride, kernels.padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x, a, b), s, kernels = ctx.saved_tensors, ctx.s, ctx.kernels
        dy, dx = dy.contiguous(memory_format=torch.channels_last), None
        if ctx.needs_input_grad[0] and kernels.turns:
            dx = nf.conv2d(dy, _merged_turned(kernels.turned, a, b, s), None, 1, kernels.turned_padding)
        elif ctx.needs_input_grad[0]:
            w = _merged(kernels.w, a, b, s)
            dx = conv2d_input(x.shape, w, dy, kernels.stride, kernels.padding)  # type: ignore[no-untyped-call]
        db = _gradient_of_b(_inner(x, a, dy.shape[2:], kernels), b, dy, s)
        da = _gradient_of_a(_seen(dy, x, a, b, s, kernels), x, a)
        return dx, None, da, db, None, None


class _Apart(torch.autograd.Function):
    """x by W, and by A and B."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernels: _Kernels, a: Tensor, b: Tensor, bias: Tensor | None, s: float
    ) -> Tensor:  # fmt: skip
        y = kernels.alone(x, bias).contiguous(memory_format=torch.channels_last)
        inner = _inner(x, a, y.shape[2:], kernels)
        _rows(y).addmm_(inner, b.t(), alpha=s)
        ctx.kernels, ctx.s = kernels, s
        ctx.save_for_backward(x, a, b, inner)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x, a, b, inner), s, kernels = ctx.saved_tensors, ctx.s, ctx.kernels
        dy, dx = dy.contiguous(memory_format=torch.channels_last), None
        db = _gradient_of_b(inner, b, dy, s)
        seen = _seen(dy, x, a, b, s, kernels)
        if ctx.needs_input_grad[0]:
            dx = kernels.turned_alone(dy).contiguous(memory_format=torch.channels_last)
            _rows(dx).addmm_(seen.t(), a.flip(2, 3).permute(2, 3, 0, 1).reshape(len(seen), -1))
        return dx, None, _gradient_of_a(seen, x, a), db, None, None


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N * H * W, C)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _merged(w: Tensor, a: Tensor, b: Tensor, s: float) -> Tensor:
    """W + s B A, of an A that is channels-last."""
    return _as_kernels(torch.addmm(_rows(w).view(len(w), -1), b, _rows(a).view(len(a), -1), alpha=s), w.shape)


def _merged_turned(turned: Tensor, a: Tensor, b: Tensor, s: float) -> Tensor:
    """The same, turned."""
    places = a.flip(2, 3).permute(1, 2, 3, 0).reshape(-1, len(a))
    return _as_kernels(torch.addmm(_rows(turned), places, b.t(), alpha=s), turned.shape)


def _as_kernels(rows: Tensor, shape: torch.Size) -> Tensor:
    """Numbers in the order of channels-last as (out, in, k, k)."""
    return rows.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)


def _inner(x: Tensor, a: Tensor, size: torch.Size, kernels: _Kernels) -> Tensor:
    """A's convolution of x, rows of `dim` channels.

    A convolution computes 16 channels at a time. So, if they fit, four neighbouring outputs are channels of one, by a
    kernel larger by one: 2.25 times fewer products for the 4 channels of kernels of 3.
    """
    (dim, channels, kernel, _), stride, padding = a.shape, kernels.stride, kernels.padding
    if stride != 1 or 4 * dim > 16 or any(side % 2 for side in size):
        return _rows(nf.conv2d(x, a, None, stride, padding))
    four = a.new_zeros(2, 2, dim, kernel + 1, kernel + 1, channels)
    down, right, *place = four.stride()
    strides = (down + place[1], right + place[2], *place)
    four.as_strided((2, 2, dim, kernel, kernel, channels), strides).copy_(a.permute(0, 2, 3, 1))
    y = nf.conv2d(x, four.flatten(0, 2).permute(0, 3, 1, 2), None, 2, padding)
    height, width = y.shape[2:]
    return _rows(y).view(len(x), height, width, 2, 2, dim).transpose(2, 3).reshape(-1, dim)


def _gradient_of_b(inner: Tensor, b: Tensor, dy: Tensor, s: float) -> Tensor:
    """From A's convolution of x."""
    return torch.addmm(b.t(), inner.t(), _rows(dy), beta=0, alpha=s).t()


def _seen(dy: Tensor, x: Tensor, a: Tensor, b: Tensor, s: float, kernels: _Kernels) -> Tensor:
    """The gradient of A's convolution as each input meets it: (k * k * dim, N * H * W), the last place of the kernel
    first."""
    (dim, _, kernel, _), stride = a.shape, kernels.stride
    inner = torch.addmm(b[:1].t(), b.t(), _rows(dy).t(), beta=0, alpha=s).view(dim, len(x), *dy.shape[2:])
    first = kernel - 1 - kernels.padding
    ends = [first + stride * side for side in dy.shape[2:]]
    spread = inner.new_zeros(*inner.shape[:2], *(side + kernel - 1 for side in x.shape[2:]))
    spread[:, :, first : ends[0] : stride, first : ends[1] : stride] = inner
    windows = spread.unfold(2, kernel, 1).unfold(3, kernel, 1)
    return windows.permute(4, 5, 0, 1, 2, 3).reshape(kernel * kernel * dim, -1)


def _gradient_of_a(seen: Tensor, x: Tensor, a: Tensor) -> Tensor:
    """A product of matrices, as convolutions are slow for the few channels between A and B."""
    dim, channels, kernel, _ = a.shape
    return (seen @ _rows(x)).view(kernel, kernel, dim, channels).flip(0, 1).permute(2, 3, 0, 1)


def _phases(w: Tensor) -> Tensor:
    """Kernels of 3 of an upsampled x as those of 2 of x, (4 * out, in, 2, 2): for the upper left output beside an
    input, the upper right, the lower left, the lower right."""
    sums = w.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
    return torch.einsum("iak,jbl,ockl->ijocab", sums, sums, w).flatten(0, 2)


class _Interleaved(torch.autograd.Function):
    """Phases (N, 4 * C, H + 1, W + 1) as the image (N, C, 2 H, 2 W) that they are of."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        phases = y.permute(0, 2, 3, 1).contiguous()
        n, height, width, channels = ctx.size = phases.shape
        image = _image(phases).reshape(n, 2 * height - 2, 2 * width - 2, channels // 4)
        return image.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        phases = dy.new_zeros(ctx.size)
        image = _image(phases)
        image.copy_(dy.permute(0, 2, 3, 1).reshape(image.shape))
        return phases.permute(0, 3, 1, 2)


def _image(phases: Tensor) -> Tensor:
    """(N, H + 1, W + 1, 4 * C) seen as (N, H, 2, W, 2, C): the lower phases lie one row further, the right ones one
    column."""
    n, height, width, channels = phases.shape
    image, down, right, _ = phases.stride()
    strides = (image, down, down + channels // 2, right, right + channels // 4, 1)
    return phases.as_strided((n, height - 1, 2, width - 1, 2, channels // 4), strides)
