"""Every kind of Stable Diffusion: opened, fine-tuned, merged, converted and sampled like diffusers' own pipelines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

from inandout.diffusion.base.base import Base, open_base, weights_fingerprint
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.finetune.config import DreamBoothConfig
from inandout.diffusion.finetune.train_adapter import train_adapter
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.kohya_file import export_kohya, import_kohya
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.lora.safetensors_io import load_adapter, save_adapter
from inandout.diffusion.pipeline import Pipeline, adaptable_models, is_inpainting, rebuild
from inandout.diffusion.prompts import encode_prompts
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.inpaint import Canvas
from inandout.diffusion.sample.sampler import sample
from inandout.errors import InputError
from inandout.hardware import Hardware
from tests.diffusion.tiny import BASE, FAMILIES, attach_adapter, tiny_adapter, tiny_family

SIDE = 32
PROMPT = "skt background cracked"
CONFIG = SamplingConfig(steps=5, guidance=3.0, scheduler="ddim")
SMALL = AdapterConfig(network_dim=2, network_alpha=1, conv_dim=1)
BF16 = Hardware(torch.device("cpu"), "bf16")
every_family = pytest.mark.parametrize("family", FAMILIES)


def draw(pipeline: Pipeline, canvas: Canvas | None = None, **given: Any) -> np.ndarray:
    batches = sample(
        pipeline, [PROMPT] * 2, [3, 4], width=SIDE, height=SIDE, config=CONFIG.model_copy(update=given), canvas=canvas
    )
    return np.concatenate([batch.images for batch in batches])


def levels(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).max())


@every_family
def test_a_folder_is_opened_and_its_kind_is_known_before(family: str, tmp_path: Path) -> None:
    pipeline = tiny_family(family)
    pipeline.save_pretrained(tmp_path)
    config = BaseConfig(base=str(tmp_path))
    base = open_base(config)
    assert base.kind == config.kind() == family.split()[0]
    assert base.fingerprint == weights_fingerprint(pipeline)
    assert is_inpainting(base.pipeline) == family.endswith("inpainting")
    assert levels(draw(base.pipeline), draw(pipeline)) <= 1


def noise() -> torch.Tensor:
    return torch.cat([torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)])


@every_family
def test_whole_images_are_those_of_diffusers(family: str) -> None:
    pipeline = tiny_family(family)
    given: dict[str, Any] = {}
    with torch.no_grad():  # the VAE's distribution, from which diffusers samples masked images, becomes its mode
        pipeline.vae.quant_conv.weight[4:] = 0
        pipeline.vae.quant_conv.bias[4:] = -30
    ours = draw(pipeline)
    if is_inpainting(pipeline):
        grey = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
        given = {"image": grey, "mask_image": Image.new("L", (SIDE, SIDE), 255), "strength": 1.0}
    theirs = pipeline(
        [PROMPT] * 2, height=SIDE, width=SIDE, num_inference_steps=5, guidance_scale=3.0, latents=noise(),
        output_type="np", **given,
    ).images  # fmt: skip
    assert levels(ours, np.rint(theirs * 255)) <= 1
    assert ours.std() > 5


@every_family
def test_pixels_outside_a_mask_are_kept(family: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros((2, SIDE, SIDE), np.bool_)
    masks[:, 8:20, 6:24] = True
    drawn = draw(tiny_family(family), Canvas(images, masks))
    assert np.array_equal(drawn[~masks], images[~masks])
    assert levels(drawn[masks], images[masks]) > 20


def finetuned(family: str, checkpoint: Path | None = None, stop_after: int = 0) -> Any:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(4)]
    logged: list[dict[str, float]] = []

    def on_step(step: int, values: dict[str, float]) -> None:
        logged.append(values)
        if step == stop_after:
            raise KeyboardInterrupt

    adapter = train_adapter(
        Base(tiny_family(family), BASE, "sd"), images[:2], epochs=2, lr=0.01, adapter=SMALL, seed=1,
        config=DreamBoothConfig(batch_size=2, repeats=1, optimiser="adamw"), prior_images=images[2:],
        checkpoint=checkpoint, on_step=on_step,
    )  # fmt: skip
    return adapter, logged


@pytest.mark.parametrize("family", ["sd2", "sd2 inpainting", "sdxl", "sdxl inpainting"])
def test_every_model_learns_and_a_stopped_training_resumes_bit_for_bit(family: str, tmp_path: Path) -> None:
    adapter, logged = finetuned(family)
    parts = {name.split(".")[0] for name, tensor in adapter.tensors.items() if ".lora_B." in name and tensor.any()}
    assert parts == adaptable_models(tiny_family(family)).keys()
    assert all(np.isfinite(values["loss"]) for values in logged)
    checkpoint = tmp_path / "stopped.safetensors"
    with pytest.raises(KeyboardInterrupt):
        finetuned(family, checkpoint, stop_after=2)
    resumed, _ = finetuned(family, checkpoint)
    assert all(torch.equal(adapter.tensors[name], resumed.tensors[name]) for name in adapter.tensors)


@every_family
def test_a_merged_adapter_draws_as_an_attached_one(family: str) -> None:
    pipeline, attached = tiny_family(family), tiny_family(family)
    adapter = tiny_adapter(pipeline)
    attach_adapter(attached, adapter)
    drawn = draw(merge(pipeline, BASE, adapter, 1.0))
    assert levels(drawn, draw(attached)) <= 1
    assert levels(drawn, draw(pipeline)) > 20
    assert np.array_equal(draw(merge(pipeline, BASE, adapter, 0.0)), draw(tiny_family(family)))


@every_family
def test_an_adapter_is_saved_exported_and_imported_unchanged(family: str, tmp_path: Path) -> None:
    pipeline = tiny_family(family)
    adapter = tiny_adapter(pipeline)
    save_adapter(tmp_path / "a.safetensors", adapter)
    export_kohya(tmp_path / "k.safetensors", adapter)
    for other in (
        load_adapter(tmp_path / "a.safetensors"), import_kohya(tmp_path / "k.safetensors", pipeline, BASE)
    ):  # fmt: skip
        assert other.fingerprint == adapter.fingerprint


def test_diffusers_reads_an_exported_adapter_of_sdxl(tmp_path: Path) -> None:
    pipeline, theirs = tiny_family("sdxl"), tiny_family("sdxl")
    assert isinstance(theirs, StableDiffusionXLPipeline)
    adapter = tiny_adapter(pipeline, conv_dim=0)
    export_kohya(tmp_path / "k.safetensors", adapter)
    theirs.load_lora_weights(tmp_path, weight_name="k.safetensors")
    assert levels(draw(theirs), draw(merge(pipeline, BASE, adapter, 1.0))) <= 1


def test_adapters_of_other_versions_are_refused(tmp_path: Path) -> None:
    for one, other, message in (("sdxl", "sd", "for Stable Diffusion XL"), ("sd", "sdxl", "Stable Diffusion 1 or 2")):
        export_kohya(tmp_path / one, tiny_adapter(tiny_family(one)))
        with pytest.raises(InputError, match=message):
            import_kohya(tmp_path / one, tiny_family(other), BASE)


def test_clip_skip_of_sdxl_is_fixed() -> None:
    with pytest.raises(InputError, match="clip_skip = 2: SDXL"):
        encode_prompts(tiny_family("sdxl"), [PROMPT], clip_skip=2)


@pytest.mark.parametrize("family", ["sd", "sdxl inpainting"])
def test_an_adapter_is_merged_in_fp32_and_rounded_once(family: str) -> None:
    pipeline = tiny_family(family)
    adapter = tiny_adapter(pipeline)
    exact, rounded = merge(pipeline, BASE, adapter, 0.7), merge(pipeline, BASE, adapter, 0.7, BF16)
    for part, model in adaptable_models(exact).items():
        for name, weight in model.state_dict().items():
            expected = weight.bfloat16() if weight.is_floating_point() else weight
            assert torch.equal(adaptable_models(rounded)[part].state_dict()[name], expected), name
    assert {weight.dtype for weight in rounded.vae.parameters()} == {torch.float32}
    difference = np.abs(draw(rounded).astype(int) - draw(exact))
    assert 0 < difference.mean() < 3


def test_a_merged_pipeline_shares_what_does_not_change() -> None:
    pipeline = tiny_family("sd")
    merged = merge(pipeline, BASE, tiny_adapter(pipeline), 0.7)
    for name, shared in (("conv_in", True), ("conv_out", True), ("mid_block.resnets.0.conv1", False)):
        weights = [one.unet.get_submodule(name).weight.data_ptr() for one in (pipeline, merged)]
        assert (weights[0] == weights[1]) is shared, name
    assert merged.vae.encoder.conv_in.weight.data_ptr() == pipeline.vae.encoder.conv_in.weight.data_ptr()


def test_rebuilding_rounds_and_leaves_the_given_pipeline() -> None:
    pipeline = tiny_family("sdxl")
    rebuilt = rebuild(pipeline, BF16)
    assert {model.dtype for model in adaptable_models(rebuilt).values()} == {torch.bfloat16}
    assert {model.dtype for model in adaptable_models(pipeline).values()} == {torch.float32}
    assert rebuilt.scheduler is not pipeline.scheduler
