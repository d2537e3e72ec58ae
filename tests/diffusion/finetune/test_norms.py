import torch
from torch import nn

from inandout.diffusion.finetune.norms import group_norm


def test_gradient_of_group_norm_is_pytorchs() -> None:
    norm = nn.GroupNorm(4, 12).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    norm.weight.copy_(torch.randn(12, generator=generator))
    x = 3 + torch.randn(2, 12, 5, 7, generator=generator, dtype=torch.double).to(memory_format=torch.channels_last)
    x.requires_grad_()
    dy = torch.randn(x.shape, generator=generator, dtype=torch.double)
    own = group_norm(norm)
    assert own is not None
    gradients = [torch.autograd.grad(way(x), x, dy)[0] for way in (own, norm)]
    torch.testing.assert_close(*gradients)


def test_groups_of_many_channels_stay_with_pytorch() -> None:
    assert group_norm(nn.GroupNorm(2, 32)) is None
