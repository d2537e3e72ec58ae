from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.merge import merge
from inandout.errors import InputError
from tests.diffusion.tiny import BASE, attach_adapter, tiny_adapter, tiny_pipeline

CONV, LINEAR = "mid_block.resnets.0.conv1", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def outputs(pipeline: StableDiffusionPipeline) -> tuple[Tensor, Tensor]:
    """Return the outputs of UNet and text encoder."""
    generator = torch.Generator().manual_seed(0)
    noisy, ids = torch.randn(2, 5, 32, 32, generator=generator), torch.arange(2 * 24).view(2, 24)
    with torch.no_grad():
        states = pipeline.text_encoder(ids)[0]
        return pipeline.unet(noisy, 300, states).sample, states


def weights(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    return {f"{part}.{name}": value for part in parts for name, value in parts[part].state_dict().items()}


def test_alpha_0_gives_the_base_bit_for_bit() -> None:
    pipeline = tiny_pipeline()
    pipeline.unet.conv_out.weight.data[0, 0, 0, 0] = -0.0
    pipeline.unet.get_submodule("mid_block.resnets.0").conv1.weight.data[0, 0, 0, 0] = -0.0
    merged = merge(pipeline, BASE, tiny_adapter(pipeline), 0.0)
    for name, value in weights(pipeline).items():
        assert value.numpy().tobytes() == weights(merged)[name].numpy().tobytes(), name


@pytest.mark.parametrize("config", [{}, {"network_dim": 3, "network_alpha": 6, "conv_dim": 5}, {"conv_dim": 0}])
def test_alpha_1_equals_the_attached_adapter(config: dict[str, float]) -> None:
    pipeline = tiny_pipeline()
    adapter = tiny_adapter(pipeline, **config)
    merged = merge(pipeline, BASE, adapter, 1.0)
    plain = outputs(pipeline)
    attach_adapter(pipeline, adapter)
    for merged_output, attached, base in zip(outputs(merged), outputs(pipeline), plain, strict=True):
        assert (merged_output - attached).abs().max() < 1e-5
        assert (merged_output - base).abs().max() > 1e-2


def test_a_weight_changes_by_alpha_times_the_scaled_product() -> None:
    pipeline = tiny_pipeline()
    adapter = tiny_adapter(pipeline)
    before, after = pipeline.unet, merge(pipeline, BASE, adapter, 0.65).unet
    for name, scale in ((CONV, 0.65 * 1 / 4), (LINEAR, 0.65 * 16 / 32)):
        a, b = (adapter.tensors[f"unet.{name}.lora_{letter}.weight"] for letter in "AB")
        product = torch.einsum("ork,kiyx->oiyx", b[..., 0].mT, a) if a.ndim == 4 else b @ a
        moved = after.get_submodule(name).weight - before.get_submodule(name).weight
        assert torch.allclose(moved, scale * product, atol=1e-7), name


def test_the_merged_pipeline_has_no_adapter_and_the_original_is_unchanged() -> None:
    pipeline = tiny_pipeline()
    before = deepcopy(weights(pipeline))
    merged = merge(pipeline, BASE, tiny_adapter(pipeline), 0.8)
    assert weights(merged).keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in weights(pipeline).items())
    assert merged.unet is not pipeline.unet
    assert merged.scheduler is not pipeline.scheduler
    assert merged.vae is pipeline.vae
    moved = {name for name, value in weights(merged).items() if not torch.equal(value, before[name])}
    assert moved == {name.replace(".lora_A.", ".") for name in tiny_adapter(pipeline).tensors if ".lora_A." in name}
    assert merged.unet.get_submodule(CONV).weight.is_contiguous(memory_format=torch.channels_last)
    assert not merged.unet.training
    assert not merged.text_encoder.training


def test_the_merged_pipeline_generates_the_same_image_after_saving_and_loading(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    merged = merge(pipeline, BASE, tiny_adapter(pipeline), 0.8)
    merged.save_pretrained(tmp_path)
    again = StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True, use_safetensors=True)
    first, second, other = (
        one("cracked", width=64, height=64, num_inference_steps=2, output_type="np",
            generator=torch.Generator().manual_seed(1)).images for one in (merged, again, pipeline)
    )  # fmt: skip
    assert np.abs(first - second).max() < 1e-4
    assert np.abs(first - other).max() > 1e-2


@pytest.mark.parametrize("alpha", [-0.1, 1.01, float("nan")])
def test_an_alpha_outside_0_to_1_is_rejected(alpha: float) -> None:
    pipeline = tiny_pipeline()
    with pytest.raises(InputError, match=r"alpha = .* must be in 0\.\.1"):
        merge(pipeline, BASE, tiny_adapter(pipeline), alpha)


def test_an_adapter_of_another_base_or_architecture_is_rejected() -> None:
    pipeline = tiny_pipeline()
    adapter = tiny_adapter(pipeline)
    with pytest.raises(InputError, match="trained on base"):
        merge(pipeline, "f" * 32, adapter, 0.5)
    with pytest.raises(InputError, match=r"unet\.other is not a layer"):
        merge(pipeline, BASE, Adapter({**adapter.tensors, "unet.other": torch.zeros(1)}, adapter.meta), 0.5)
