import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import get_peft_model_state_dict
from pydantic import ValidationError
from transformers import CLIPTextConfig, CLIPTextModel

from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import (
    adapter_parameters,
    adapter_tensors,
    add_adapter,
    count_modules,
    lora_parameters,
    set_adapter_tensors,
)
from inandout.errors import InputError
from tests.diffusion.tiny import tiny_pipeline

TINY_CONV = "unet.mid_block.resnets.0.conv1"


def stable_diffusion_1() -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Stable Diffusion 1 without weights: diffusers' defaults except for two arguments."""
    with torch.device("meta"):
        text = CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            max_position_embeddings=77,
        )  # fmt: skip
        return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8), CLIPTextModel(text)


def totals(counts: dict[str, int], part: str) -> tuple[int, float]:
    """Return the number of modules, and of parameters in millions."""
    own = {name: value for name, value in counts.items() if name.startswith(part)}
    modules = sum(value for name, value in own.items() if name.endswith("_modules"))
    return modules, round(sum(value for name, value in own.items() if name.endswith("_parameters")) / 1e6, 2)


@pytest.mark.parametrize(("conv_dim", "expected"), [(4, (278, 18.39)), (0, (192, 13.57))])
def test_stable_diffusion_1_gets_as_many_modules_as_with_kohya(conv_dim: int, expected: tuple[int, float]) -> None:
    models = stable_diffusion_1()
    add_adapter(*models, AdapterConfig(conv_dim=conv_dim), seed=0)
    counts = count_modules(lora_parameters(*models))
    assert totals(counts, "unet") == expected
    assert totals(counts, "text_encoder") == (72, 5.31)
    assert counts.get("unet_conv3x3_modules", 0) == (50 if conv_dim else 0)
    assert not counts.keys() & {"text_encoder_conv1x1_modules", "text_encoder_conv3x3_modules"}


def test_only_the_adapter_is_trainable_in_fp32_and_has_no_effect_at_first() -> None:
    pipeline, base = tiny_pipeline(), tiny_pipeline()
    models = pipeline.unet, pipeline.text_encoder
    add_adapter(*models, AdapterConfig(), seed=0)
    trained = [parameter for model in models for parameter in model.parameters() if parameter.requires_grad]
    assert [id(parameter) for parameter in trained] == [id(parameter) for parameter in adapter_parameters(*models)]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    assert not pipeline.unet.training
    noisy, ids = torch.randn(2, 5, 8, 8), torch.arange(2 * 24).view(2, 24)
    states = base.text_encoder(ids)[0]
    assert torch.equal(pipeline.text_encoder(ids)[0], states)
    assert torch.equal(pipeline.unet(noisy, 3, states).sample, base.unet(noisy, 3, states).sample)


def test_layers_outside_kohyas_rule_get_no_adapter() -> None:
    pipeline = tiny_pipeline()
    add_adapter(pipeline.unet, pipeline.text_encoder, AdapterConfig(), seed=0)
    roots = {name.split(".")[1] for name in adapter_tensors(pipeline.unet, pipeline.text_encoder)}
    assert roots == {"down_blocks", "mid_block", "up_blocks", "encoder"}


def test_rank_and_scaling_depend_on_the_kind_of_layer() -> None:
    pipeline = tiny_pipeline()
    config = AdapterConfig(network_dim=6, network_alpha=1.5, conv_dim=3, conv_alpha=9)
    add_adapter(pipeline.unet, pipeline.text_encoder, config, seed=0)
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
        add_adapter(pipeline.unet, pipeline.text_encoder, AdapterConfig(), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        starts.append(adapter_tensors(pipeline.unet, pipeline.text_encoder)[f"{TINY_CONV}.lora_A.weight"])
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    bound = (8 * 9) ** -0.5  # Kaiming, uniform, a = sqrt 5: 1 / sqrt(fan-in)
    assert 0.9 * bound < starts[0].abs().max() <= bound


def test_weights_are_saved_with_pefts_names_and_loaded_again() -> None:
    one, other = tiny_pipeline(), tiny_pipeline()
    for pipeline, seed in ((one, 0), (other, 1)):
        add_adapter(pipeline.unet, pipeline.text_encoder, AdapterConfig(), seed=seed)
    tensors = adapter_tensors(one.unet, one.text_encoder)
    parts = {"unet": one.unet, "text_encoder": one.text_encoder}
    assert set(tensors) == {f"{part}.{name}" for part in parts for name in get_peft_model_state_dict(parts[part])}
    set_adapter_tensors(other.unet, other.text_encoder, tensors)
    for name, tensor in adapter_tensors(other.unet, other.text_encoder).items():
        assert torch.equal(tensor, tensors[name]), name


def test_weights_that_do_not_fit_are_rejected_by_name_and_change_nothing() -> None:
    pipeline = tiny_pipeline()
    models = pipeline.unet, pipeline.text_encoder
    add_adapter(*models, AdapterConfig(), seed=0)
    tensors = adapter_tensors(*models)
    name = f"{TINY_CONV}.lora_A.weight"
    others = {key: tensor + 1 for key, tensor in tensors.items() if key != name}
    with pytest.raises(InputError, match=f"{name} is missing"):
        set_adapter_tensors(*models, others)
    with pytest.raises(InputError, match=r"unet\.no\.such.* is not a layer"):
        set_adapter_tensors(*models, {**others, name: tensors[name], "unet.no.such.lora_A.weight": tensors[name]})
    with pytest.raises(InputError, match=r"conv1.*\(4, 8, 3, 1\).*\(4, 8, 3, 3\)"):
        set_adapter_tensors(*models, {**others, name: tensors[name][..., :1]})
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in adapter_tensors(*models).items())


def test_an_invalid_or_misspelt_configuration_is_rejected() -> None:
    for wrong in ({"network_dim": 0}, {"conv_dim": -1}, {"network_alpha": 0.0}, {"conv_rank": 4}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            AdapterConfig.model_validate(wrong)
