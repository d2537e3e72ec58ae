"""Open a tiny Stable Diffusion from one file with the tensor names of the original release."""

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import single_file_model, single_file_utils
from safetensors.torch import load_file, save_file
from torch import Tensor

from inandout.diffusion.base.base import base_identity, open_base, weights_fingerprint
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.pipeline import is_inpainting
from inandout.diffusion.pretrain.networks import build_scheduler, build_text_encoder
from inandout.diffusion.pretrain.tokenizer import build_tokenizer
from inandout.errors import InputError
from tests.diffusion.tiny import tiny_pipeline

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(name: str, attending: set[str]) -> str:
    """Return the original name of a tensor of a UNet with one layer a block; `attending` blocks have attention."""
    module, _, kind = name.rpartition(".")
    if module in UNET:
        return f"{UNET[module]}.{kind}"
    way, rest = name.split(".", 1)
    if way == "mid_block":
        number, rest = re.fullmatch(r"(resnets.\d|attentions.0)\.(.*)", rest).groups()
        return f"middle_block.{['resnets.0', 'attentions.0', 'resnets.1'].index(number)}.{resnet_name(rest)}"
    block, what, layer, rest = re.fullmatch(r"(\d+)\.(\w+)\.(\d+)\.(.*)", rest).groups()
    first = 2 * int(block) + (way == "down_blocks")
    if what == "downsamplers":
        return f"input_blocks.{first + 1}.0.op.{kind}"
    if what == "upsamplers":
        return f"output_blocks.{first + 1}.{2 if f'{way}.{block}' in attending else 1}.{rest}"
    side = "input_blocks" if way == "down_blocks" else "output_blocks"
    return f"{side}.{first + int(layer)}.{int(what == 'attentions')}.{resnet_name(rest)}"


def resnet_name(rest: str) -> str:
    module, _, kind = rest.rpartition(".")
    return f"{RESNET.get(module, module)}.{kind}"


def vae_name(name: str, blocks: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda found: f"up.{blocks - 1 - int(found[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{blocks - 1 - int(found[1])}.upsample", name)
    found = re.fullmatch(r"(\w+)\.mid_block\.attentions\.0\.(.*)\.(\w+)", name)
    return f"{found[1]}.mid.attn_1.{ATTENTION[found[2]]}.{found[3]}" if found else name


def with_original_names(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    unet, blocks = pipeline.unet.state_dict(), len(pipeline.vae.config.block_out_channels)
    attending = {".".join(name.split(".")[:2]) for name in unet if ".attentions." in name}
    tensors = {f"model.diffusion_model.{unet_name(name, attending)}": value for name, value in unet.items()}
    for name, value in pipeline.vae.state_dict().items():
        square = ".attentions.0.to_" in name and name.endswith("weight")  # a 1x1 convolution there
        tensors[f"first_stage_model.{vae_name(name, blocks)}"] = value[..., None, None] if square else value
    for name, value in pipeline.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{name}"] = value
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(32)[None]
    tensors["alphas_cumprod"] = torch.ones(3)
    return {name: value.clone().contiguous() for name, value in tensors.items()}


def make_pipeline(in_channels: int = 5) -> StableDiffusionPipeline:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(["background", "crack"])
    vae = AutoencoderKL(
        block_out_channels=(4, 8), norm_num_groups=2, latent_channels=5, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=32, in_channels=in_channels, out_channels=5, layers_per_block=1, block_out_channels=(8, 8, 8),
        cross_attention_dim=16, norm_num_groups=4, attention_head_dim=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae.eval(), text_encoder=build_text_encoder(len(tokenizer), 0, width=16).eval(), tokenizer=tokenizer,
        unet=unet.eval(), scheduler=build_scheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "folder"
    make_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def configuration(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder without the weights."""
    bare = tmp_path_factory.mktemp("bare")
    for path in folder.rglob("*.*"):
        if path.suffix != ".safetensors":
            (bare / path.relative_to(folder)).parent.mkdir(exist_ok=True)
            (bare / path.relative_to(folder)).write_bytes(path.read_bytes())
    return bare


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(with_original_names(make_pipeline()), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def config_of(file: Path, configuration: Path | str) -> BaseConfig:
    return BaseConfig(base=str(file), base_config=str(configuration))


def test_a_single_file_is_the_same_base_as_the_folder(file: Path, folder: Path, configuration: Path) -> None:
    base = open_base(config_of(file, configuration))
    expected = open_base(BaseConfig(base=str(folder)))
    assert base.fingerprint == expected.fingerprint == weights_fingerprint(make_pipeline())
    assert base.kind == "sd"
    assert dict(base.pipeline.scheduler.config) == dict(expected.pipeline.scheduler.config)
    assert base.pipeline.tokenizer("background crack") == expected.pipeline.tokenizer("background crack")
    assert not any(module.training for module in base.pipeline.unet.modules())
    assert base.pipeline.safety_checker is None


def test_an_inpainting_model_is_opened_from_a_single_file(file: Path, configuration: Path, tmp_path: Path) -> None:
    inpainting = shutil.copytree(configuration, tmp_path / "inpainting")
    for name, change in (("model_index", {"_class_name": "StableDiffusionInpaintPipeline"}),
                         ("unet/config", {"in_channels": 11})):  # fmt: skip
        path = inpainting / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    save_file(with_original_names(make_pipeline(in_channels=11)), file)
    base = open_base(config_of(file, inpainting))
    assert base.fingerprint == weights_fingerprint(make_pipeline(in_channels=11))
    assert is_inpainting(base.pipeline)


def test_a_half_precision_file_is_loaded_as_fp32(file: Path, configuration: Path) -> None:
    save_file({name: value.half() for name, value in load_file(file).items()}, file)
    pipeline = open_base(config_of(file, configuration)).pipeline
    assert {part.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {torch.float32}


def test_the_identity_depends_on_file_and_configuration(file: Path, folder: Path, configuration: Path) -> None:
    identity = base_identity(config_of(file, configuration))
    assert identity == base_identity(config_of(file, folder)), "weights beside the configuration are not read"
    pinned = f"owner/name@{'0' * 40}"
    assert len({identity, base_identity(config_of(file, pinned)), base_identity(BaseConfig(base=str(folder)))}) == 3
    save_file({name: value.half() for name, value in load_file(file).items()}, file)
    assert base_identity(config_of(file, configuration)) != identity


def test_a_missing_configuration_is_named_in_the_error(file: Path) -> None:
    for act in (open_base, base_identity):
        with pytest.raises(InputError, match=r"no configuration and no tokenizer; set base_config"):
            act(BaseConfig(base=str(file)))


def test_a_renamed_pickle_is_rejected_unread(tmp_path: Path, configuration: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "was run",)

    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Touch()))
    with pytest.raises(InputError, match=r"not a safetensors file .* renaming a pickle does not convert it"):
        open_base(config_of(tmp_path / "model.safetensors", configuration))
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."])
def test_a_file_without_a_component_is_rejected_even_if_the_configuration_has_its_weights(
    file: Path, folder: Path, prefix: str
) -> None:
    save_file({name: value for name, value in load_file(file).items() if not name.startswith(prefix)}, file)
    with pytest.raises(InputError, match=f"no tensor name begins with {prefix};"):
        open_base(config_of(file, folder))


@pytest.mark.parametrize("with_accelerate", [True, False])
@pytest.mark.parametrize(
    ("part", "name"),
    [("unet", "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"),
     ("vae", "first_stage_model.decoder.conv_in.weight"),
     ("text_encoder", "cond_stage_model.transformer.text_model.final_layer_norm.weight")],
)  # fmt: skip
def test_missing_tensors_are_rejected_and_not_initialised_at_random(
    file: Path, configuration: Path, part: str, name: str, with_accelerate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = load_file(file)
    del tensors[name]
    save_file(tensors, file)
    for module in (single_file_model, single_file_utils):
        monkeypatch.setattr(module, "is_accelerate_available", lambda: with_accelerate)
    with pytest.raises(InputError, match=rf"tensors for the {part}, but its .* needs \d+;|does not fit .* meta"):
        open_base(config_of(file, configuration))


def test_a_file_that_does_not_fit_base_config_is_rejected(file: Path, configuration: Path, tmp_path: Path) -> None:
    tensors = load_file(file)
    tensors["model.diffusion_model.out.2.weight"] = torch.zeros(4, 8, 3, 3)
    save_file(tensors, file)
    with pytest.raises(InputError, match="does not fit the configuration"):
        open_base(config_of(file, configuration))
    with pytest.raises(InputError, match=r"model_index\.json: FileNotFoundError"):
        open_base(config_of(file, tmp_path))
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    with pytest.raises(InputError, match="its VAE is an AutoencoderTiny"):
        open_base(config_of(file, tmp_path / "tiny"))
