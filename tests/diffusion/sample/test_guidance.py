from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from inandout.diffusion.prompts import prompt_states
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.guidance import Composition, composed_guidance
from inandout.diffusion.sample.presets import DEFAULT_MODES, DRAWING_PRESETS, drawing_preset
from inandout.diffusion.sample.sampler import sample
from inandout.errors import InputError
from tests.diffusion.tiny import tiny_pipeline

INSTANCE, CLASS = "skt background", "background"
PROMPTS = [f"{INSTANCE} cracked", f"{INSTANCE} scratched"]


@pytest.fixture
def base() -> StableDiffusionPipeline:
    return separable()


@pytest.fixture
def tuned() -> StableDiffusionPipeline:
    """A model with other weights than `base`."""
    model = separable()
    with torch.no_grad():
        for part in (model.unet, model.text_encoder):
            for parameter in part.parameters():
                parameter.mul_(1.25)
    return model


def separable() -> StableDiffusionPipeline:
    pipeline = tiny_pipeline()
    for parameter in pipeline.text_encoder.parameters():  # random weights encode all prompts nearly alike
        parameter.data.mul_(3)
    return pipeline


def draw(pipeline: StableDiffusionPipeline, prompts: list[str], scale: float, **given: Any) -> np.ndarray:
    config = SamplingConfig(steps=3, guidance=scale).resolved("embedded")
    batches = sample(pipeline, prompts, range(len(prompts)), width=32, height=32, config=config, **given)
    return np.concatenate([batch.images for batch in batches]).astype(int)


@torch.inference_mode()
def test_composed_prediction_is_the_product_and_the_direction_of_the_defect(
    base: StableDiffusionPipeline, tuned: StableDiffusionPipeline
) -> None:
    latents, time = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(500)

    def predicted(model: StableDiffusionPipeline, prompts: list[str]) -> torch.Tensor:
        states = prompt_states(model.text_encoder, model.tokenizer, prompts)
        result: torch.Tensor = model.unet(latents, time, encoder_hidden_states=states).sample
        return result

    defect = predicted(base, ["background cracked", "background scratched"]) - predicted(base, [CLASS] * 2)
    expected = predicted(tuned, [INSTANCE] * 2) + 2.5 * defect
    guidance = composed_guidance(tuned, Composition(base, INSTANCE, CLASS), PROMPTS, 2.5, 1)
    torch.testing.assert_close(guidance(PROMPTS)(latents, time), expected, atol=1e-5, rtol=1e-4)
    assert defect.abs().mean() > 1e-3 * expected.abs().mean(), "the direction is visible"


def test_without_fine_tuning_composed_guidance_is_guidance_away_from_the_class(base: StableDiffusionPipeline) -> None:
    composed = draw(base, ["background cracked"], 3, composition=Composition(base, CLASS, CLASS))
    config = SamplingConfig(steps=3, guidance=3, negative_prompt=CLASS).resolved("embedded")
    batch = next(sample(base, ["background cracked"], [0], width=32, height=32, config=config))
    assert np.abs(composed - batch.images).max() <= 1


def test_a_prompt_without_a_defect_draws_the_fine_tuned_model_unguided(
    base: StableDiffusionPipeline, tuned: StableDiffusionPipeline
) -> None:
    composed = draw(tuned, [INSTANCE], 7, composition=Composition(base, INSTANCE, CLASS))
    assert np.abs(composed - draw(tuned, [INSTANCE], 1)).max() <= 1
    assert np.abs(composed - draw(base, [INSTANCE], 1)).max() > 3, "the models differ"


def test_the_base_reads_the_class_prompt_in_place_of_the_instance_prompt(base: StableDiffusionPipeline) -> None:
    composition = Composition(base, INSTANCE, CLASS)
    assert composition.base_prompt("skt background cracked") == "background cracked"
    assert composition.base_prompt("blue skt background with a crack") == "blue background with a crack"
    assert composition.base_prompt("a crack") == "a crack"


def test_a_negative_prompt_is_refused(base: StableDiffusionPipeline) -> None:
    config = SamplingConfig(negative_prompt="dark").resolved("embedded")
    with pytest.raises(InputError, match=r"negative_prompt = 'dark'.*guidance_mode=plain"):
        sample(
            base, [INSTANCE], [0], width=32, height=32, config=config, composition=Composition(base, INSTANCE, CLASS)
        )


def test_the_presets_of_stable_diffusion_with_plain_guidance_are_the_papers() -> None:
    """Sections 5.1 and 5.2."""
    found = {shot: preset for (kind, shot, mode), preset in DRAWING_PRESETS.items() if (kind, mode) == ("sd", "plain")}
    assert {shot: preset.whole.alpha for shot, preset in found.items()} == {"zero": 0.60, "few": 0.95, "full": 0.80}
    assert all(preset.inpaint == preset.whole for preset in found.values())
    assert found["zero"].defects == ("cracked", "scratched")
    assert found["few"].defects == found["full"].defects == ("",)
    assert DEFAULT_MODES["sd"] == "plain"


def test_presets_cover_every_base_shot_and_mode() -> None:
    assert len(DRAWING_PRESETS) == 4 * 3 * 2
    for kind, mode in DEFAULT_MODES.items():
        assert drawing_preset(kind, "zero", None) == (mode, DRAWING_PRESETS[kind, "zero", mode])
    assert drawing_preset("embedded", "few", "plain")[0] == "plain"
