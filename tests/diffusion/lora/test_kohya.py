import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import conv2d
from transformers import CLIPTextConfig, CLIPTextModel

from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.kohya import kohya_name, to_kohya
from inandout.diffusion.lora.kohya_file import export_kohya, import_kohya
from inandout.diffusion.lora.layers import adapted_layers
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.lora.targets import pair_shapes
from inandout.errors import InputError
from tests.diffusion.tiny import BASE, tiny_adapter, tiny_pipeline

CONV = "lora_unet_mid_block_resnets_0_conv1"


def draw(pipeline: StableDiffusionPipeline) -> np.ndarray:
    generator = torch.Generator().manual_seed(5)
    return pipeline(
        "skt background", width=64, height=64, num_inference_steps=3, generator=generator, output_type="np"
    ).images  # fmt: skip


def header(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def test_layer_names_and_shapes_are_kohyas() -> None:
    tensors = to_kohya(tiny_adapter(tiny_pipeline()))
    text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    attention = "lora_unet_down_blocks_2_attentions_0_transformer_blocks_0_attn1_to_q"
    shapes = {
        f"{text}.lora_down.weight": (32, 16),
        f"{text}.lora_up.weight": (16, 32),
        f"{attention}.lora_down.weight": (32, 8),
        "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0.lora_up.weight": (8, 32),
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj.lora_up.weight": (64, 32),
        "lora_unet_down_blocks_2_attentions_0_proj_in.lora_down.weight": (32, 8, 1, 1),
        "lora_unet_down_blocks_0_downsamplers_0_conv.lora_down.weight": (4, 8, 3, 3),
        "lora_unet_up_blocks_0_upsamplers_0_conv.lora_up.weight": (8, 4, 1, 1),
        "lora_unet_up_blocks_0_resnets_0_conv_shortcut.lora_down.weight": (32, 16, 1, 1),
        "lora_unet_mid_block_resnets_0_time_emb_proj.lora_up.weight": (8, 32),
    }
    assert {name: tuple(tensors[name].shape) for name in shapes} == shapes
    assert len(tensors) == 3 * 152
    assert tensors[f"{text}.alpha"].item() == tensors[f"{attention}.alpha"].item() == 16
    assert tensors[f"{CONV}.alpha"].item() == 1


@pytest.mark.parametrize("config", [{}, {"network_dim": 6, "network_alpha": 1.5, "conv_dim": 3}, {"conv_dim": 0}])
def test_a_round_trip_gives_the_same_image(tmp_path: Path, config: dict[str, float]) -> None:
    path, pipeline = tmp_path / "kohya.safetensors", tiny_pipeline()
    adapter = tiny_adapter(pipeline, **config)
    export_kohya(path, adapter)
    back = import_kohya(path, pipeline, BASE)
    assert back.fingerprint == adapter.fingerprint
    assert back.meta.model_dump(exclude={"config"}) == adapter.meta.model_dump(exclude={"config"})
    image = draw(merge(pipeline, BASE, adapter, 0.8))
    assert np.abs(draw(merge(pipeline, BASE, back, 0.8)) - image).max() < 1e-6
    assert np.abs(draw(pipeline) - image).max() > 1e-2


def test_the_header_describes_the_adapter(tmp_path: Path) -> None:
    path, pipeline = tmp_path / "kohya.safetensors", tiny_pipeline()
    export_kohya(path, tiny_adapter(pipeline))
    found = header(path)
    assert json.loads(found.pop("ss_network_args")) == {"conv_dim": "4", "conv_alpha": "1"}
    assert (found["ss_network_module"], found["ss_network_dim"], found["ss_network_alpha"]) == (
        "networks.lora",
        "32",
        "16",
    )
    assert "ss_base_model_version" not in found
    export_kohya(path, tiny_adapter(pipeline, conv_dim=0))
    assert "ss_network_args" not in header(path)


def test_the_header_names_stable_diffusion_1(tmp_path: Path) -> None:
    with torch.device("meta"):
        text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        models: Any = SimpleNamespace(unet=unet, text_encoder=CLIPTextModel(text))
    config, tensors = AdapterConfig(network_dim=1, conv_dim=0), {}
    for name, layer in adapted_layers(models, config).items():
        for letter, shape in zip("AB", pair_shapes(layer.weight.shape, 1), strict=True):
            tensors[f"{name}.lora_{letter}.weight"] = torch.zeros(shape)
    meta = tiny_adapter(tiny_pipeline()).meta.model_copy(update={"config": config})
    export_kohya(tmp_path / "kohya.safetensors", Adapter(tensors, meta))
    assert header(tmp_path / "kohya.safetensors")["ss_base_model_version"] == "sd_v1"


def test_an_adapter_without_text_encoder_layers_is_imported_with_zeros(tmp_path: Path) -> None:
    path, pipeline = tmp_path / "unet.safetensors", tiny_pipeline()
    adapter = tiny_adapter(pipeline)
    save_file({name: tensor for name, tensor in to_kohya(adapter).items() if "lora_te" not in name}, path)
    imported = import_kohya(path, pipeline, BASE)
    assert imported.tensors.keys() == adapter.tensors.keys()
    for name, tensor in imported.tensors.items():
        expected = torch.zeros_like(tensor) if name.startswith("text_encoder.") else adapter.tensors[name]
        assert torch.equal(tensor, expected), name


def test_the_header_of_another_program_is_read(tmp_path: Path) -> None:
    path, pipeline = tmp_path / "other.safetensors", tiny_pipeline()
    adapter = tiny_adapter(pipeline, network_dim=8, network_alpha=4)
    halves = {name: tensor.half() for name, tensor in to_kohya(adapter).items()}
    save_file(halves, path, metadata={"ss_clip_skip": "2", "ss_seed": "1234"})
    meta = import_kohya(path, pipeline, BASE).meta
    assert (meta.base, meta.clip_skip, meta.seed, meta.instance_prompt, meta.sources) == (BASE, 2, 1234, "", ())
    assert meta.config == adapter.meta.config
    save_file(halves, path, metadata={"ss_clip_skip": "0"})  # the last layer, as 1
    assert import_kohya(path, pipeline, BASE).meta.clip_skip == 1
    save_file(halves, path, metadata={"ss_clip_skip": "None"})
    read = import_kohya(path, pipeline, BASE)
    assert read.meta.clip_skip == 1
    assert {tensor.dtype for tensor in read.tensors.values()} == {torch.float32}


def test_a_missing_alpha_equals_the_rank(tmp_path: Path) -> None:
    path, pipeline = tmp_path / "old.safetensors", tiny_pipeline()
    tensors = to_kohya(tiny_adapter(pipeline))
    save_file({name: tensor for name, tensor in tensors.items() if not name.endswith(".alpha")}, path)
    config = import_kohya(path, pipeline, BASE).meta.config
    assert (config.network_dim, config.network_alpha, config.conv_dim, config.conv_alpha) == (32, 32, 4, 4)


def test_an_export_of_another_base_is_rejected(tmp_path: Path) -> None:
    path, pipeline = tmp_path / "kohya.safetensors", tiny_pipeline()
    export_kohya(path, tiny_adapter(pipeline))
    with pytest.raises(InputError, match=f"trained on base {BASE}, but this base is {'f' * 32}"):
        import_kohya(path, pipeline, "f" * 32)


WRONG = {
    "an unknown layer": ({"lora_unet_conv_in.alpha": torch.tensor(1.0)}, r"lora_unet_conv_in: this model has no"),
    "the text encoder of SDXL": ({"lora_te1_text_model_x.alpha": torch.tensor(1.0)}, r"Stable Diffusion XL.*lora_te1"),
    "a shape": ({f"{CONV}.lora_down.weight": torch.zeros(4, 8, 1, 1)}, rf"{CONV}\.lora_down.*\(4, 8, 1, 1\)"),
    "another rank above": ({f"{CONV}.lora_up.weight": torch.zeros(8, 3, 1, 1)}, rf"{CONV}\.lora_up.*\(8, 4, 1, 1\)"),
    "no rank": ({f"{CONV}.lora_down.weight": torch.tensor(1.0)}, rf"{CONV}\.lora_down.*shape \(\)"),
    "two alphas": ({f"{CONV}.alpha": torch.zeros(2)}, rf"{CONV}\.alpha: 2 numbers"),
    "another method": ({f"{CONV}.dora_scale": torch.zeros(8)}, rf"is a DoRA adapter \({CONV}\.dora_scale\)"),
    "an unknown tensor": ({f"{CONV}.extra": torch.zeros(8)}, rf"{CONV}\.extra: not part of a LoRA"),
    "integers": ({f"{CONV}.alpha": torch.tensor(2)}, rf"{CONV}\.alpha has type torch.int64"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_tensor_that_does_not_fit_is_rejected_by_name(tmp_path: Path, case: str) -> None:
    path, pipeline = tmp_path / "other.safetensors", tiny_pipeline()
    changes, message = WRONG[case]
    save_file({**to_kohya(tiny_adapter(pipeline)), **changes}, path)
    with pytest.raises(InputError, match=message):
        import_kohya(path, pipeline, BASE)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    path, pipeline = tmp_path / "other.safetensors", tiny_pipeline()
    tensors = to_kohya(tiny_adapter(pipeline))
    save_file(without(tensors, f"{CONV}.lora_up.weight"), path)
    with pytest.raises(InputError, match=f"{CONV}.lora_up.weight is missing"):
        import_kohya(path, pipeline, BASE)
    save_file({"lora_nothing": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="lora_nothing: this model has no such layer"):
        import_kohya(path, pipeline, BASE)
    assert load_file(path).keys() == {"lora_nothing"}


def deltas(adapter: Adapter) -> dict[str, Tensor]:
    """Return what the adapter adds to the weight of each layer, flattened to (out, in * kernel)."""
    found = {}
    for name, a in adapter.tensors.items():
        if ".lora_A." in name:
            dim, alpha = adapter.meta.config.dim_and_alpha(a.shape)
            b = adapter.tensors[name.replace(".lora_A.", ".lora_B.")]
            found[name.removesuffix(".lora_A.weight")] = alpha / dim * b.flatten(1) @ a.flatten(1)
    return found


def expected_deltas(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same by kohya's name, computed from a kohya file."""
    found = {}
    for name, down in tensors.items():
        if name.endswith(".lora_down.weight"):
            layer = name.removesuffix(".lora_down.weight")
            scale = float(tensors[f"{layer}.alpha"]) / len(down)
            found[layer] = scale * tensors[f"{layer}.lora_up.weight"].flatten(1) @ down.flatten(1)
    return found


def random_ranks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with another rank and alpha in every layer."""
    changed, rng = dict(tensors), np.random.default_rng(0)
    for name, down in tensors.items():
        if name.endswith(".lora_down.weight"):
            layer, rank = name.removesuffix(".lora_down.weight"), int(rng.integers(1, len(down) + 1))
            up = tensors[f"{layer}.lora_up.weight"]
            changed[name], changed[f"{layer}.lora_up.weight"] = down[:rank].clone(), up[:, :rank].clone()
            changed[f"{layer}.alpha"] = torch.tensor(float(rng.choice([0, 0.5, 3, 5000, -2])))
    return changed


PARTIAL: dict[str, Callable[[str], bool]] = {
    "text encoder alone": lambda name: "lora_te" in name,
    "attention alone": lambda name: "_to_q." in name or "_to_k." in name or "_to_v." in name,
    "3x3 convolutions alone": lambda name: "_conv1." in name,
    "one layer": lambda name: name.startswith(CONV),
    "without a block": lambda name: "up_blocks_1" not in name,
}


@pytest.mark.parametrize("part", PARTIAL)
@pytest.mark.parametrize("ranks", ["one rank", "a rank of its own"])
def test_a_partial_adapter_changes_exactly_its_layers(tmp_path: Path, part: str, ranks: str) -> None:
    path, pipeline = tmp_path / "part.safetensors", tiny_pipeline()
    tensors = {name: value for name, value in to_kohya(tiny_adapter(pipeline)).items() if PARTIAL[part](name)}
    tensors = tensors if ranks == "one rank" else random_ranks(tensors)
    save_file(tensors, path)
    found, expected = deltas(import_kohya(path, pipeline, BASE)), expected_deltas(tensors)
    assert expected
    for layer, delta in found.items():
        wanted = expected.pop(kohya_name(layer), torch.zeros_like(delta))
        torch.testing.assert_close(delta, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert not expected


def diffusers_names(tensors: dict[str, Tensor], style: str) -> dict[str, Tensor]:
    """Return this package's tensors, which have the names of diffusers, with older names or those of peft."""
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, rest = name.partition(".lora_")
        down = rest.startswith("A")
        if style == "lora.down":
            name = f"{layer}.lora.{'down' if down else 'up'}.weight"
        elif style == "transformers":
            name = name.replace("text_encoder.", "text_encoder.text_model.")
        elif style == "peft":
            if layer.startswith("text_encoder."):
                continue
            name = f"base_model.model.{layer.removeprefix('unet.')}.lora_{'A' if down else 'B'}.default.weight"
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("style", ["diffusers", "lora.down", "transformers", "peft"])
@pytest.mark.parametrize("alpha", [None, 7.0])
def test_files_of_diffusers_and_peft_are_imported(tmp_path: Path, style: str, alpha: float | None) -> None:
    path, pipeline = tmp_path / "d.safetensors", tiny_pipeline()
    adapter = tiny_adapter(pipeline)
    metadata = {}
    if alpha is not None and style == "peft":
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha, "r": 32}))
    elif alpha is not None:
        stated = {"unet.lora_alpha": alpha, "text_encoder.lora_alpha": alpha}
        metadata["lora_adapter_metadata"] = json.dumps(stated)
    save_file(diffusers_names(adapter.tensors, style), path, metadata=metadata)
    imported = deltas(import_kohya(path, pipeline, BASE))
    for name, a in adapter.tensors.items():
        if ".lora_A." in name:
            layer, b = name.removesuffix(".lora_A.weight"), adapter.tensors[name.replace(".lora_A.", ".lora_B.")]
            scale = 1.0 if alpha is None else alpha / len(a)
            left_out = style == "peft" and layer.startswith("text_encoder.")
            wanted = (0.0 if left_out else scale) * b.flatten(1) @ a.flatten(1)
            torch.testing.assert_close(imported[layer], wanted, rtol=1e-5, atol=1e-6)


def test_a_convolution_with_a_core_is_imported(tmp_path: Path) -> None:
    path, pipeline = tmp_path / "cp.safetensors", tiny_pipeline()
    down, core, up = torch.randn(3, 8, 1, 1), torch.randn(3, 3, 3, 3), torch.randn(8, 3, 1, 1)
    save_file({f"{CONV}.lora_down.weight": down, f"{CONV}.lora_mid.weight": core, f"{CONV}.lora_up.weight": up}, path)
    found = deltas(import_kohya(path, pipeline, BASE))["unet.mid_block.resnets.0.conv1"]
    x = torch.randn(1, 8, 5, 5)
    wanted = conv2d(conv2d(conv2d(x, down), core, padding=1), up)
    torch.testing.assert_close(conv2d(x, found.reshape(8, 8, 3, 3), padding=1), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{CONV}.hada_w1_a", "a LoHa adapter"), (f"{CONV}.lokr_w1", "a LoKr adapter"),
        (f"{CONV}.diff", "full weight differences"), ("emb_params", "a textual inversion"),
        ("model.diffusion_model.x", "a whole checkpoint, not an adapter"),
        ("lora_te2_text_model_x.lora_down.weight", "Stable Diffusion XL"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_imported_are_named(tmp_path: Path, name: str, kind: str) -> None:
    save_file({name: torch.ones(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=f"is .*{kind}"):
        import_kohya(tmp_path / "x.safetensors", tiny_pipeline(), BASE)


def test_the_lora_of_a_file_with_embeddings_is_imported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = tiny_pipeline()
    adapter = tiny_adapter(pipeline)
    bundled = {"bundle_emb.skt.string_to_param.*": torch.ones(1, 4)}
    save_file(to_kohya(adapter) | bundled, tmp_path / "b.safetensors")
    assert import_kohya(tmp_path / "b.safetensors", pipeline, BASE).meta.config == adapter.meta.config
    assert "its embeddings of skt are not imported" in caplog.text
