from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import get_peft_model_state_dict
from pydantic import ValidationError
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.kohya import kohya_name
from inandout.diffusion.lora.layers import (
    adapter_parameters,
    adapter_tensors,
    add_adapter,
    count_modules,
    lora_parameters,
    set_adapter_tensors,
)
from inandout.diffusion.lora.targets import find_layers
from inandout.errors import InputError
from tests.diffusion.tiny import tiny_pipeline

TINY_CONV = "unet.mid_block.resnets.0.conv1"


def text_config(width: int, layers: int, heads: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=77, projection_dim=width,
    )  # fmt: skip


def stable_diffusion_1() -> Any:
    """Stable Diffusion 1 without weights: diffusers' defaults except for two arguments."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        return SimpleNamespace(unet=unet, text_encoder=CLIPTextModel(text_config(768, 12, 12)))


def stable_diffusion_2(in_channels: int) -> Any:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            in_channels=in_channels, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
        )  # fmt: skip
        return SimpleNamespace(unet=unet, text_encoder=CLIPTextModel(text_config(1024, 23, 16)))


def sdxl(in_channels: int) -> Any:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            in_channels=in_channels, sample_size=128, block_out_channels=(320, 640, 1280), cross_attention_dim=2048,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(5, 10, 20),
            transformer_layers_per_block=(1, 2, 10), use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
        first, second = text_config(768, 12, 12), text_config(1280, 32, 20)
        return SimpleNamespace(
            unet=unet, text_encoder=CLIPTextModel(first), text_encoder_2=CLIPTextModelWithProjection(second)
        )


PARAMETERS = {"sd1": 859.5e6, "sd2": 865.9e6, "sdxl": 2567.5e6}
"""Of the published UNets."""


@pytest.mark.parametrize(
    ("name", "pipeline", "c3", "lierla", "text"),
    [
        ("sd2", lambda: stable_diffusion_2(4), 278, 192, {"text_encoder": 138}),
        ("sd2", lambda: stable_diffusion_2(9), 278, 192, {"text_encoder": 138}),
        ("sdxl", lambda: sdxl(4), 788, 722, {"text_encoder.": 72, "text_encoder_2": 192}),
        ("sdxl", lambda: sdxl(9), 788, 722, {"text_encoder.": 72, "text_encoder_2": 192}),
    ],
    ids=["2", "2 inpainting", "xl", "xl inpainting"],
)
def test_other_versions_get_as_many_modules_as_with_kohya(
    name: str, pipeline: Callable[[], Any], c3: int, lierla: int, text: dict[str, int]
) -> None:
    """kohya prints 788 UNet modules and 264 of the text encoders for SDXL, 72 of them in the first."""
    models = pipeline()
    assert sum(weight.numel() for weight in models.unet.parameters()) == pytest.approx(PARAMETERS[name], rel=1e-4)
    for conv, expected in ((True, c3), (False, lierla)):
        layers = find_layers(models, conv)
        assert sum(layer.startswith("unet.") for layer in layers) == expected
        assert {part: sum(layer.startswith(part) for layer in layers) for part in text} == text
    names = {kohya_name(layer, xl=name == "sdxl") for layer in find_layers(models, True)}
    assert len(names) == c3 + sum(text.values())


def test_layers_of_sdxl_have_the_original_names_in_kohyas_files() -> None:
    """The names of layers in the published SDXL adapters."""
    expected = {
        "unet.down_blocks.0.resnets.1.conv1": "lora_unet_input_blocks_2_0_in_layers_2",
        "unet.down_blocks.0.downsamplers.0.conv": "lora_unet_input_blocks_3_0_op",
        "unet.down_blocks.1.resnets.0.conv_shortcut": "lora_unet_input_blocks_4_0_skip_connection",
        "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0":
            "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0",
        "unet.down_blocks.2.attentions.1.proj_in": "lora_unet_input_blocks_8_1_proj_in",
        "unet.mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj":
            "lora_unet_middle_block_1_transformer_blocks_9_ff_net_0_proj",
        "unet.mid_block.resnets.1.conv2": "lora_unet_middle_block_2_out_layers_3",
        "unet.up_blocks.0.upsamplers.0.conv": "lora_unet_output_blocks_2_2_conv",
        "unet.up_blocks.1.attentions.2.proj_out": "lora_unet_output_blocks_5_1_proj_out",
        "unet.up_blocks.2.resnets.2.time_emb_proj": "lora_unet_output_blocks_8_0_emb_layers_1",
        "text_encoder.encoder.layers.0.mlp.fc1": "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "text_encoder_2.text_model.encoder.layers.31.self_attn.q_proj":
            "lora_te2_text_model_encoder_layers_31_self_attn_q_proj",
    }  # fmt: skip
    assert expected.keys() <= find_layers(sdxl(4), True).keys()
    assert {layer: kohya_name(layer, xl=True) for layer in expected} == expected


def totals(counts: dict[str, int], part: str) -> tuple[int, float]:
    """Return the number of modules, and of parameters in millions."""
    own = {name: value for name, value in counts.items() if name.startswith(part)}
    modules = sum(value for name, value in own.items() if name.endswith("_modules"))
    return modules, round(sum(value for name, value in own.items() if name.endswith("_parameters")) / 1e6, 2)


@pytest.mark.parametrize(("conv_dim", "expected"), [(4, (278, 18.39)), (0, (192, 13.57))])
def test_stable_diffusion_1_gets_as_many_modules_as_with_kohya(conv_dim: int, expected: tuple[int, float]) -> None:
    pipeline = stable_diffusion_1()
    add_adapter(pipeline, AdapterConfig(conv_dim=conv_dim), seed=0)
    counts = count_modules(lora_parameters(pipeline))
    assert totals(counts, "unet") == expected
    assert totals(counts, "text_encoder") == (72, 5.31)
    assert counts.get("unet_conv3x3_modules", 0) == (50 if conv_dim else 0)
    assert not counts.keys() & {"text_encoder_conv1x1_modules", "text_encoder_conv3x3_modules"}


def test_only_the_adapter_is_trainable_in_fp32_and_has_no_effect_at_first() -> None:
    pipeline, base = tiny_pipeline(), tiny_pipeline()
    models = pipeline.unet, pipeline.text_encoder
    add_adapter(pipeline, AdapterConfig(), seed=0)
    trained = [parameter for model in models for parameter in model.parameters() if parameter.requires_grad]
    assert [id(parameter) for parameter in trained] == [id(parameter) for parameter in adapter_parameters(pipeline)]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    assert not pipeline.unet.training
    noisy, ids = torch.randn(2, 5, 8, 8), torch.arange(2 * 24).view(2, 24)
    states = base.text_encoder(ids)[0]
    assert torch.equal(pipeline.text_encoder(ids)[0], states)
    assert torch.equal(pipeline.unet(noisy, 3, states).sample, base.unet(noisy, 3, states).sample)


def test_layers_outside_kohyas_rule_get_no_adapter() -> None:
    pipeline = tiny_pipeline()
    add_adapter(pipeline, AdapterConfig(), seed=0)
    roots = {name.split(".")[1] for name in adapter_tensors(pipeline)}
    assert roots == {"down_blocks", "mid_block", "up_blocks", "encoder"}


def test_rank_and_scaling_depend_on_the_kind_of_layer() -> None:
    pipeline = tiny_pipeline()
    config = AdapterConfig(network_dim=6, network_alpha=1.5, conv_dim=3, conv_alpha=9)
    add_adapter(pipeline, config, seed=0)
    found = set()
    for model in (pipeline.unet, pipeline.text_encoder):
        for layer in model.modules():
            if hasattr(layer, "lora_A"):
                kernel = getattr(layer.base_layer, "kernel_size", None)
                found.add((kernel, layer.r["default"], layer.scaling["default"]))
    assert found == {(None, 6, 0.25), ((1, 1), 6, 0.25), ((3, 3), 3, 3.0)}


def test_initial_weights_depend_on_the_seed_alone_and_leave_the_global_generator() -> None:
    starts = []
    for state, seed in ((1, 0), (2, 0), (2, 5)):
        pipeline = tiny_pipeline()
        torch.manual_seed(state)
        before = torch.get_rng_state()
        add_adapter(pipeline, AdapterConfig(), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        starts.append(adapter_tensors(pipeline)[f"{TINY_CONV}.lora_A.weight"])
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    bound = (8 * 9) ** -0.5  # Kaiming, uniform, a = sqrt 5: 1 / sqrt(fan-in)
    assert 0.9 * bound < starts[0].abs().max() <= bound


def test_weights_are_saved_with_pefts_names_and_loaded_again() -> None:
    one, other = tiny_pipeline(), tiny_pipeline()
    for pipeline, seed in ((one, 0), (other, 1)):
        add_adapter(pipeline, AdapterConfig(), seed=seed)
    tensors = adapter_tensors(one)
    parts = {"unet": one.unet, "text_encoder": one.text_encoder}
    assert set(tensors) == {f"{part}.{name}" for part in parts for name in get_peft_model_state_dict(parts[part])}
    set_adapter_tensors(other, tensors)
    for name, tensor in adapter_tensors(other).items():
        assert torch.equal(tensor, tensors[name]), name


def test_weights_that_do_not_fit_are_rejected_by_name_and_change_nothing() -> None:
    pipeline = tiny_pipeline()
    add_adapter(pipeline, AdapterConfig(), seed=0)
    tensors = adapter_tensors(pipeline)
    name = f"{TINY_CONV}.lora_A.weight"
    others = {key: tensor + 1 for key, tensor in tensors.items() if key != name}
    with pytest.raises(InputError, match=f"{name} is missing"):
        set_adapter_tensors(pipeline, others)
    with pytest.raises(InputError, match=r"unet\.no\.such.* is not a layer"):
        set_adapter_tensors(pipeline, {**others, name: tensors[name], "unet.no.such.lora_A.weight": tensors[name]})
    with pytest.raises(InputError, match=r"conv1.*\(4, 8, 3, 1\).*\(4, 8, 3, 3\)"):
        set_adapter_tensors(pipeline, {**others, name: tensors[name][..., :1]})
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in adapter_tensors(pipeline).items())


def test_an_invalid_or_misspelt_configuration_is_rejected() -> None:
    for wrong in ({"network_dim": 0}, {"conv_dim": -1}, {"network_alpha": 0.0}, {"conv_rank": 4}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            AdapterConfig.model_validate(wrong)
