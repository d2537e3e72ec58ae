from collections import Counter
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from torch.nn import functional as nf

from inandout.diffusion.finetune import convolutions
from inandout.diffusion.finetune.products import fewer_products
from inandout.diffusion.lora.layers import add_adapter, lora_parameters, set_adapter_tensors
from tests.diffusion.tiny import tiny_adapter, tiny_pipeline


def adapted(network_dim: int = 32, conv_dim: int = 4) -> StableDiffusionPipeline:
    """The tiny pipeline with an adapter whose every number counts."""
    pipeline = tiny_pipeline()
    adapter = tiny_adapter(pipeline, network_dim=network_dim, conv_dim=conv_dim)
    add_adapter(pipeline.unet, pipeline.text_encoder, adapter.meta.config, seed=0)
    set_adapter_tensors(pipeline.unet, pipeline.text_encoder, adapter.tensors)
    pipeline.unet.double()  # in which two ways to compute the same differ by next to nothing
    pipeline.text_encoder.double()
    return pipeline


def gradients(pipeline: StableDiffusionPipeline, height: int = 10, width: int = 26) -> dict[str, Tensor]:
    """Of some loss that depends on everything."""
    ids = torch.arange(2 * 24).view(2, 24)
    noisy = torch.randn(2, 5, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    noisy = noisy.to(pipeline.unet.dtype, memory_format=torch.channels_last)
    predicted = pipeline.unet(noisy, torch.tensor([3, 700]), pipeline.text_encoder(ids)[0]).sample
    (predicted - noisy).square().mean().backward()
    parameters = lora_parameters(pipeline.unet, pipeline.text_encoder)
    return {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}


def changed(pipeline: StableDiffusionPipeline) -> set[str]:
    """Kinds of layers that are computed in another way than peft's and diffusers'."""
    layers = [layer for model in (pipeline.unet, pipeline.text_encoder) for layer in model.modules()]
    own = [getattr(layer, "base_layer", layer) for layer in layers if "forward" in vars(layer)]
    return {f"{type(layer).__name__} {getattr(layer, 'kernel_size', '')}".strip() for layer in own}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many convolutions were computed by W + s B A (`_Merged`), how many by W, A and B (`_Apart`)."""
    ways: Counter[str] = Counter()
    for way in (convolutions._Merged, convolutions._Apart):

        def forward(*args: Any, way: Any = way, known: Any = way.forward) -> Tensor:
            ways[way.__name__] += 1
            return known(*args)

        monkeypatch.setattr(way, "forward", staticmethod(forward))
    return ways


@pytest.mark.parametrize("dims", [(32, 4), (1, 1)])
def test_gradients_are_those_of_peft(dims: tuple[int, int], taken: Counter[str]) -> None:
    """Where the adapter is large and where it is small beside W. Images are upsampled to twice the size, but those of
    odd sides."""
    expected = gradients(adapted(*dims))
    pipeline = adapted(*dims)
    with fewer_products(pipeline.unet, pipeline.text_encoder):
        own = {"Linear", "Conv2d (1, 1)", "Conv2d (3, 3)", "Upsample2D", "GroupNorm", "Attention"}
        assert changed(pipeline) == own
        got = gradients(pipeline)
    assert len(expected) == len(lora_parameters(pipeline.unet, pipeline.text_encoder))
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-12)
    assert min(taken["_Merged"], taken["_Apart"]) > 1


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.double, 1e-8, 1e-12), (torch.float, 1e-3, 1e-5)])
def test_so_are_those_of_few_pixels_and_then_of_fewer(
    dtype: torch.dtype, rtol: float, atol: float, taken: Counter[str]
) -> None:  # fmt: skip
    pipeline = adapted(conv_dim=1).to(dtype=dtype)
    with fewer_products(pipeline.unet, pipeline.text_encoder):
        for size in ((4, 12), (2, 2)):
            pipeline.unet.zero_grad()
            pipeline.text_encoder.zero_grad()
            got, expected = gradients(pipeline, *size), gradients(adapted(conv_dim=1), *size)
            same = {name: gradient.double() for name, gradient in got.items()}
            torch.testing.assert_close(same, expected, rtol=rtol, atol=atol)
    assert taken["_Apart"] > taken["_Merged"]


def test_so_are_those_without_turned_kernels_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions._Kernels, "turns", False)
    expected = gradients(adapted())
    pipeline = adapted()
    with fewer_products(pipeline.unet, pipeline.text_encoder):
        torch.testing.assert_close(gradients(pipeline), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("padding", [0, 1])
def test_kernels_in_the_order_of_onednn_give_the_same_images(padding: int) -> None:
    torch.manual_seed(0)
    w, bias = torch.randn(32, 24, 3, 3), torch.randn(32)
    frozen = convolutions._Frozen(w, padding)
    assert frozen.w.is_mkldnn == torch.backends.mkldnn.is_available()
    for size in ((2, 24, 5, 7), (12, 24, 4, 4)):
        x = torch.randn(size)
        torch.testing.assert_close(frozen(x, bias), nf.conv2d(x, w, bias, 1, padding), rtol=1e-4, atol=1e-4)


def test_layers_are_pefts_again_afterwards() -> None:
    pipeline = adapted()
    with pytest.raises(RuntimeError, match="broken"), fewer_products(pipeline.unet, pipeline.text_encoder):
        raise RuntimeError("broken")
    assert not changed(pipeline)


def test_weights_of_sixteen_bits_are_not_added_to() -> None:
    pipeline = adapted()
    pipeline.unet.to(torch.bfloat16)
    with fewer_products(pipeline.unet):
        assert changed(pipeline) == {"Attention"}
