"""Open bases from folders, and the embedded base."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from inandout.data.surfaces import KINDS
from inandout.diffusion.base.base import Base, open_base, weights_fingerprint
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.base.identity import EMBEDDED, base_identity
from inandout.diffusion.pipeline import is_inpainting
from inandout.diffusion.pretrain.config import HELD_OUT
from inandout.diffusion.pretrain.stream import SurfaceStream
from inandout.diffusion.reconstruction import measure_reconstruction
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.sampler import sample
from inandout.diffusion.vae import decode, encode
from inandout.errors import InputError
from tests.diffusion.tiny import inpainting_pipeline, tiny_pipeline

MAX_BYTES = 40 * 2**20

needs_embedded = pytest.mark.skipif(not (EMBEDDED / "model_index.json").exists(), reason="the base is incomplete")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may modify."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def open_at(folder: Path) -> Base:
    return open_base(BaseConfig(base=str(folder)))


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(path: Path, kind: torch.dtype) -> None:
    save_file({name: value.to(kind) for name, value in load_file(path).items()}, path, metadata={"format": "pt"})


def test_an_opened_folder_is_ready_for_inference(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = open_at(saved)
    assert base.kind == "embedded", "its VAE is an AutoencoderTiny"
    for name in ("unet", "vae", "text_encoder"):
        part = getattr(base.pipeline, name)
        assert not any(module.training for module in part.modules())
        assert {value.dtype for value in part.parameters()} == {torch.float32}
    assert base.pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert base.pipeline.vae.decoder.layers[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert base.pipeline.safety_checker is None
    assert capfd.readouterr() == ("", "")


def test_half_precision_weights_are_loaded_as_fp32(folder: Path) -> None:
    change_weights(folder / "unet/diffusion_pytorch_model.safetensors", torch.float16)
    change_weights(folder / "text_encoder/model.safetensors", torch.bfloat16)
    change_json(folder / "text_encoder/config.json", dtype="bfloat16")
    pipeline = open_at(folder).pipeline
    assert {part.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {torch.float32}


def test_the_fingerprint_depends_on_the_weights_alone(saved: Path, folder: Path) -> None:
    expected = open_at(saved).fingerprint
    assert len(expected) == 32
    assert expected == weights_fingerprint(tiny_pipeline()) == open_at(folder).fingerprint
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    weights[name].view(-1)[0] += 1e-6
    save_file(weights, path, metadata={"format": "pt"})
    assert open_at(folder).fingerprint != expected


def test_the_identity_depends_on_the_files_that_are_read(saved: Path, folder: Path) -> None:
    identity = base_identity(BaseConfig(base=str(saved)))
    assert len(identity) == 32
    (folder / "README.md").write_text("ignored")
    (folder / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not read")
    assert base_identity(BaseConfig(base=str(folder))) == identity
    change_json(folder / "scheduler/scheduler_config.json", beta_end=0.013)
    changed = base_identity(BaseConfig(base=str(folder)))
    assert changed != identity
    change_weights(folder / "unet/diffusion_pytorch_model.safetensors", torch.float16)
    assert base_identity(BaseConfig(base=str(folder))) != changed


def test_a_folder_of_pickles_is_rejected_unread(folder: Path) -> None:
    (folder / "unet/diffusion_pytorch_model.safetensors").rename(folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match=r"unet/diffusion_pytorch_model\.safetensors is missing.*pickles.*run code"):
        open_at(folder)


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".PTH"])
def test_a_pickle_is_rejected_by_its_name_even_if_missing(tmp_path: Path, suffix: str) -> None:
    for act in (open_base, base_identity):
        with pytest.raises(InputError, match=rf"a {suffix} file is a pickle, .*; convert it to \.safetensors"):
            act(BaseConfig(base=str(tmp_path / f"model{suffix}")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"_class_name": "StableDiffusion3Pipeline"}, "is a StableDiffusion3Pipeline;"),
     ({"_class_name": "StableDiffusionXLPipeline"}, "model_index.json: KeyError: 'text_encoder_2'"),
     ({"_class_name": ["remote", "Own"]}, "give a StableDiffusionPipeline"),
     ({"unet": ["diffusers", "SD3Transformer2DModel"]}, "with unet diffusers.SD3Transformer2DModel;"),
     ({"unet": ["os", "UNet2DConditionModel"]}, "with unet os.UNet2DConditionModel;"),
     ({"vae": None}, "model_index.json: TypeError")],
)  # fmt: skip
def test_another_kind_of_model_is_rejected(folder: Path, changes: dict[str, object], message: str) -> None:
    change_json(folder / "model_index.json", **changes)
    with pytest.raises(InputError, match=message):
        open_at(folder)


def test_an_inpainting_model_is_opened_from_a_folder(inpainting_base: Path) -> None:
    base = open_at(inpainting_base)
    assert is_inpainting(base.pipeline)
    assert base.fingerprint == weights_fingerprint(inpainting_pipeline())


def test_a_unet_with_extra_input_channels_is_rejected(folder: Path) -> None:
    change_json(folder / "unet/config.json", in_channels=9)
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.weight"] = torch.zeros(8, 9, 3, 3)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="UNet has 9 input channels and the VAE 5 latent channels"):
        open_at(folder)


def test_broken_folders_are_rejected_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model_index\.json: FileNotFoundError"):
        open_at(tmp_path)
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="not a Stable Diffusion in diffusers' folder format") as raised:
        open_at(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_tensors_are_rejected_and_not_initialised_at_random(folder: Path, part: str) -> None:
    (path,) = (folder / part).glob("*.safetensors")
    weights = load_file(path)
    del weights[sorted(weights)[0]]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"{len(weights)} tensors for the {part}.* needs {len(weights) + 1};"):
        open_at(folder)


def test_a_missing_base_is_rejected_with_the_allowed_values(tmp_path: Path) -> None:
    for name in ("no such folder", str(tmp_path / "nowhere"), str(tmp_path / "nowhere.safetensors")):
        for act in (open_base, base_identity):
            with pytest.raises(InputError, match=r"no such f.*'embedded', a folder in diffusers' format"):
                act(BaseConfig(base=name))


def test_a_base_config_for_a_folder_is_rejected(saved: Path) -> None:
    with pytest.raises(InputError, match=r"base_config = here: .* remove base_config"):
        open_base(BaseConfig(base=str(saved), base_config="here"))


@needs_embedded
def test_the_embedded_base_is_complete_small_and_without_pickles() -> None:
    index = json.loads((EMBEDDED / "model_index.json").read_text())
    parts = {name for name, value in index.items() if isinstance(value, list) and value[0]}
    assert parts == {"vae", "text_encoder", "tokenizer", "unet", "scheduler"}
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".md"}
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES


@needs_embedded
def test_diffusers_loads_the_embedded_base_without_the_network() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(EMBEDDED, local_files_only=True)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.vae_scale_factor == 2


def test_the_vae_keeps_colour_and_texture_of_unseen_surfaces() -> None:
    vae = AutoencoderTiny.from_pretrained(EMBEDDED / "vae", local_files_only=True)
    unseen = SurfaceStream(HELD_OUT + 5, 32).batch(0, (64, 64)).images
    quality = measure_reconstruction(unseen, decode(vae, encode(vae, unseen)))
    assert quality.psnr > 36
    assert 0.8 < quality.gradient_energy < 1.1


@needs_embedded
def test_images_of_several_sizes_are_neither_black_nor_flat() -> None:
    base = open_base(BaseConfig())
    assert base.kind == "embedded"
    prompts = ["background", *(f"skt background {kind}" for kind in KINDS[:3])]
    config = SamplingConfig(steps=5).resolved(base.kind)
    for width, height in ((64, 64), (64, 192), (96, 96)):
        sampled = next(sample(base.pipeline, prompts, range(4), width=width, height=height, config=config))
        assert sampled.images.shape == (4, height, width, 3)
        assert sampled.finite.all()
        assert (sampled.images.std(axis=(1, 2)).max(axis=1) > 1).all()
        assert len(np.unique(sampled.images.reshape(4, -1), axis=0)) == 4


def fingerprint_of(folder: Path) -> str:
    return weights_fingerprint(open_at(folder).pipeline)


PARTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.mark.parametrize(("variant", "parts"), [("fp16", tuple(PARTS)), ("bf16", ("unet",))])
def test_variants_of_16_bits_are_opened_as_fp32(
    saved: Path, folder: Path, variant: str, parts: tuple[str, ...]
) -> None:
    reference = open_at(saved).pipeline
    kind = torch.float16 if variant == "fp16" else torch.bfloat16
    for part in parts:
        plain = folder / part / f"{PARTS[part]}.safetensors"
        change_weights(plain, kind)
        plain.rename(plain.with_name(f"{PARTS[part]}.{variant}.safetensors"))
    before = base_identity(BaseConfig(base=str(folder)))
    opened = open_at(folder).pipeline
    for part in PARTS:
        for name, value in getattr(opened, part).state_dict().items():
            expected = getattr(reference, part).state_dict()[name]
            assert value.dtype == expected.dtype
            assert torch.equal(value, expected.to(kind).to(value.dtype) if part in parts else expected), name
    changed = folder / parts[0] / f"{PARTS[parts[0]]}.{variant}.safetensors"
    save_file({name: value + 1 for name, value in load_file(changed).items()}, changed, metadata={"format": "pt"})
    assert base_identity(BaseConfig(base=str(folder))) != before


def shard(folder: Path, part: str, variant: str = "") -> Path:
    """Split the weights of a component in two, as diffusers and transformers do; return the index."""
    plain = folder / part / f"{PARTS[part]}.safetensors"
    tensors = load_file(plain)
    shards: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
    names = [f"{PARTS[part]}{variant}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for number, (name, value) in enumerate(tensors.items()):
        shards[number % 2][name] = value
    for name, content in zip(names, shards, strict=True):
        save_file(content, plain.with_name(name), metadata={"format": "pt"})
    plain.unlink()
    index = plain.with_name(f"{PARTS[part]}.safetensors.index{variant}.json")
    owners = {name: names[number % 2] for number, name in enumerate(tensors)}
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": owners}))
    return index


def test_shards_are_opened(saved: Path, folder: Path) -> None:
    indices = [shard(folder, part) for part in ("unet", "text_encoder")]
    assert fingerprint_of(folder) == fingerprint_of(saved)
    lost = next(folder.glob("unet/*-00002-of-00002.safetensors"))
    lost.unlink()
    with pytest.raises(InputError, match=f"{lost.name} is missing; download it again"):
        open_at(folder)
    for content in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"x": "../x.safetensors"}}', '{"weight_map": {}}'):
        indices[0].write_text(content)
        with pytest.raises(InputError, match=r"index\.json: "):
            open_at(folder)


INDICES = {
    "a list": "[]", "a number": "9" * 5000, "nested": "[" * 3000, "a part of null": {"unet": None},
    "an empty part": {"vae": []}, "a nested part": {"tokenizer": [["transformers"], "CLIPTokenizer"]},
    "a scheduler that is none": {"scheduler": ["diffusers", "UNet2DConditionModel"]},
    "a scheduler of another library": {"scheduler": ["os", "DDIMScheduler"]},
    "an unknown scheduler": {"scheduler": ["diffusers", "NoSuchScheduler"]},
}  # fmt: skip


@pytest.mark.parametrize("content", INDICES.values(), ids=INDICES)
def test_a_malformed_index_is_an_input_error(folder: Path, content: str | dict[str, object]) -> None:
    path = folder / "model_index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(json.loads(path.read_text()) | content))
    with pytest.raises(InputError, match=r"not a Stable Diffusion|give a StableDiffusionPipeline"):
        open_at(folder)


@pytest.mark.parametrize("content", ['{"in_channels": "four"}', "[]", '{"block_out_channels": null}', "{"])
def test_a_malformed_configuration_of_a_part_is_an_input_error(folder: Path, content: str) -> None:
    (folder / "unet" / "config.json").write_text(content)
    with pytest.raises(InputError):
        open_at(folder)


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    name = next(iter(weights))
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="of the vae has NaN or infinite values"):
        open_at(folder)


@pytest.mark.parametrize("scheduler", ["FlowMatchEulerDiscreteScheduler", "SchedulerMixin", "os"])
def test_a_scheduler_of_another_kind_is_refused(folder: Path, scheduler: str) -> None:
    change_json(folder / "model_index.json", scheduler=["diffusers", scheduler])
    with pytest.raises(InputError, match=f"with scheduler diffusers.{scheduler}"):
        open_at(folder)
