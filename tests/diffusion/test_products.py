import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from inandout.diffusion.adapter import add_adapter, lora_parameters, set_adapter_tensors
from inandout.diffusion.products import fewer_products
from tests.diffusion.tiny import tiny_adapter, tiny_pipeline


def adapted(network_dim: int = 32) -> StableDiffusionPipeline:
    """The tiny pipeline with an adapter whose every number counts."""
    pipeline = tiny_pipeline()
    adapter = tiny_adapter(pipeline, network_dim=network_dim)
    add_adapter(pipeline.unet, pipeline.text_encoder, adapter.meta.config, seed=0)
    set_adapter_tensors(pipeline.unet, pipeline.text_encoder, adapter.tensors)
    pipeline.unet.double()  # in which two ways to compute the same differ by next to nothing
    pipeline.text_encoder.double()
    return pipeline


def gradients(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    """Of some loss that depends on everything."""
    ids = torch.arange(2 * 24).view(2, 24)
    noisy = torch.randn(2, 5, 10, 26, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    predicted = pipeline.unet(noisy, torch.tensor([3, 700]), pipeline.text_encoder(ids)[0]).sample
    (predicted - noisy).square().mean().backward()
    parameters = lora_parameters(pipeline.unet, pipeline.text_encoder)
    return {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}


def changed(pipeline: StableDiffusionPipeline) -> set[str]:
    """Kinds of layers that are computed in another way than peft's and diffusers'."""
    layers = [layer for model in (pipeline.unet, pipeline.text_encoder) for layer in model.modules()]
    own = [getattr(layer, "base_layer", layer) for layer in layers if "forward" in vars(layer)]
    return {f"{type(layer).__name__} {getattr(layer, 'kernel_size', '')}".strip() for layer in own}


@pytest.mark.parametrize("network_dim", [32, 1])
def test_gradients_are_those_of_peft(network_dim: int) -> None:
    """Where the adapter is large and where it is small beside W. Pictures are upsampled to twice the size, but those of
    odd sides."""
    expected = gradients(adapted(network_dim))
    pipeline = adapted(network_dim)
    with fewer_products(pipeline.unet, pipeline.text_encoder):
        assert changed(pipeline) == {"Linear", "Conv2d (1, 1)", "Conv2d (3, 3)", "Upsample2D", "GroupNorm"}
        got = gradients(pipeline)
    assert len(expected) == len(lora_parameters(pipeline.unet, pipeline.text_encoder))
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-12)


def test_so_are_those_without_turned_kernels_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inandout.diffusion.convolutions._turned", lambda w: None)
    expected = gradients(adapted())
    pipeline = adapted()
    with fewer_products(pipeline.unet, pipeline.text_encoder):
        torch.testing.assert_close(gradients(pipeline), expected, rtol=1e-8, atol=1e-12)


def test_layers_are_pefts_again_afterwards() -> None:
    pipeline = adapted()
    with pytest.raises(RuntimeError, match="broken"), fewer_products(pipeline.unet, pipeline.text_encoder):
        raise RuntimeError("broken")
    assert not changed(pipeline)


def test_weights_of_sixteen_bits_are_not_added_to() -> None:
    pipeline = adapted()
    pipeline.unet.to(torch.bfloat16)
    with fewer_products(pipeline.unet):
        assert not changed(pipeline)
