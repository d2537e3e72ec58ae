"""The base that is shipped with the package."""

import json

import numpy as np
import pytest
from diffusers import AutoencoderTiny, StableDiffusionPipeline

from inandout.data.surfaces import KINDS
from inandout.diffusion.autoencoder import decode, encode
from inandout.diffusion.base import EMBEDDED, load_base, sample
from inandout.diffusion.fidelity import measure_fidelity
from inandout.diffusion.school import HELD_OUT, School

LIMIT = 40 * 2**20

whole = pytest.mark.skipif(not (EMBEDDED / "model_index.json").exists(), reason="only the VAE is trained so far")


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    return load_base()


@whole
def test_the_folder_is_complete_small_and_without_pickles() -> None:
    index = json.loads((EMBEDDED / "model_index.json").read_text())
    parts = {name for name, value in index.items() if isinstance(value, list) and value[0]}
    assert parts == {"vae", "text_encoder", "tokenizer", "unet", "scheduler"}
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".md"}
    assert sum(path.stat().st_size for path in files) <= LIMIT


@whole
def test_diffusers_loads_it_without_the_network() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(EMBEDDED, local_files_only=True)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.vae_scale_factor == 2


def test_the_vae_keeps_colour_and_texture_of_unseen_surfaces() -> None:
    vae = AutoencoderTiny.from_pretrained(EMBEDDED / "vae", local_files_only=True)
    unseen = School(HELD_OUT + 5, 32).batch(0, (64, 64)).pictures
    fidelity = measure_fidelity(unseen, decode(vae, encode(vae, unseen)))
    assert fidelity.psnr > 36
    assert 0.8 < fidelity.gradient_energy < 1.1


@whole
def test_pictures_of_several_sizes_are_neither_black_nor_flat(base: StableDiffusionPipeline) -> None:
    prompts = ["background", *(f"skt background {kind}" for kind in KINDS[:3])]
    for width, height in ((64, 64), (64, 192), (96, 96)):
        pictures = next(iter(sample(base, prompts, range(4), width=width, height=height, steps=5)))
        assert pictures.shape == (4, height, width, 3)
        assert (pictures.std(axis=(1, 2)).max(axis=1) > 1).all()
        assert len(np.unique(pictures.reshape(4, -1), axis=0)) == 4
