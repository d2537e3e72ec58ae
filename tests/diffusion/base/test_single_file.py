"""Open a tiny Stable Diffusion from one file with the tensor names of the original release."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import single_file_model, single_file_utils
from safetensors.torch import load_file, save_file

from inandout.diffusion.base.base import open_base, weights_fingerprint
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.base.identity import base_identity
from inandout.diffusion.pipeline import is_inpainting
from inandout.diffusion.pretrain.networks import build_scheduler, build_text_encoder
from inandout.diffusion.pretrain.tokenizer import build_tokenizer
from inandout.errors import InputError
from tests.diffusion.base.original_names import with_original_names
from tests.diffusion.tiny import FAMILIES, tiny_family, tiny_pipeline


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


@pytest.mark.parametrize("family", FAMILIES)
def test_every_version_is_opened_from_a_single_file(family: str, tmp_path: Path) -> None:
    pipeline = tiny_family(family)
    pipeline.save_pretrained(tmp_path / "folder")
    tensors = with_original_names(pipeline)
    save_file(tensors, tmp_path / "model.safetensors")
    config, expected = config_of(tmp_path / "model.safetensors", tmp_path / "folder"), tiny_family(family)
    base = open_base(config)
    assert base.fingerprint == weights_fingerprint(expected)
    assert base.kind == config.kind() == family.split()[0]
    assert is_inpainting(base.pipeline) == ("inpainting" in family)
    for prefix, word in (("model.", "emb_layers"), ("first", "conv"), ("cond", "mlp"), ("cond", "attn")):
        missing = [name for name in tensors if name.startswith(prefix) and word in name]
        rest = {name: value for name, value in tensors.items() if name != missing[-1]}
        save_file(rest, tmp_path / "model.safetensors")
        with pytest.raises(InputError, match=r"has \d+ tensors for the .*needs \d+;|does not fit the configuration"):
            open_base(config)


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
