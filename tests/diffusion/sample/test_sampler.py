from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)
from pydantic import ValidationError

from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.sampler import Sampled, image_seed, sample
from inandout.errors import InputError
from inandout.memseg.plan import plan
from tests.diffusion.tiny import tiny_pipeline

SIZE: Any = {"width": 32, "height": 48}
EPSILON = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


@pytest.fixture
def pipeline() -> StableDiffusionPipeline:
    random = tiny_pipeline()
    for parameter in random.text_encoder.parameters():  # random weights encode all prompts nearly alike
        parameter.data.mul_(3)
    return random


def settings(**changes: Any) -> SamplingConfig:
    return SamplingConfig(**{"steps": 4, **changes}).resolved("embedded")


def draw(pipeline: StableDiffusionPipeline, seeds: list[int], **given: Any) -> np.ndarray:
    prompts = given.pop("prompts", ["background cracked"] * len(seeds))
    config = given.pop("config", None) or settings()
    batches = list(sample(pipeline, prompts, seeds, config=config, **{**SIZE, **given}))
    assert all(batch.finite.all() for batch in batches)
    return np.concatenate([batch.images for batch in batches])


def max_difference(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("solver", ["dpm++", "ddim"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_images_equal_those_of_diffusers_pipeline(
    pipeline: StableDiffusionPipeline, solver: str, guidance: float
) -> None:
    images = draw(pipeline, [3, 4], config=settings(scheduler=solver, guidance=guidance, negative_prompt="dark"))
    kind = DDIMScheduler if solver == "ddim" else DPMSolverMultistepScheduler
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    expected = pipeline(
        prompt=["background cracked"] * 2, negative_prompt=["dark"] * 2, guidance_scale=guidance, output_type="np",
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)], num_inference_steps=4, **SIZE,
    ).images  # fmt: skip
    assert max_difference(images, (expected * 255).round()) <= 1
    assert images.std() > 5


def test_an_image_depends_on_its_seed_and_prompt_and_not_on_its_batch(pipeline: StableDiffusionPipeline) -> None:
    prompts = ["background", "cracked", "skt", "scratched steel", "blue"]
    one_batch = draw(pipeline, [1, 2, 3, 4, 5], prompts=prompts, config=settings(sample_batch=5))
    in_twos = draw(pipeline, [1, 2, 3, 4, 5], prompts=prompts, config=settings(sample_batch=2))
    assert max_difference(one_batch, in_twos) <= 1
    assert max_difference(one_batch[3:4], draw(pipeline, [4], prompts=["scratched steel"])) <= 1
    assert max_difference(one_batch[3:4], draw(pipeline, [5], prompts=["scratched steel"])) > 10
    assert max_difference(one_batch[3:4], draw(pipeline, [4], prompts=["background"])) > 1


def test_equal_batches_are_equal_bit_for_bit(pipeline: StableDiffusionPipeline) -> None:
    first = draw(pipeline, [1, 2, 3], config=settings(sample_batch=2))
    torch.manual_seed(77)
    assert np.array_equal(first, draw(pipeline, [1, 2, 3], config=settings(sample_batch=2)))


def test_pipeline_and_global_generator_are_unchanged(pipeline: StableDiffusionPipeline) -> None:
    scheduler, state = pipeline.scheduler, torch.get_rng_state()
    before = dict(scheduler.config)
    for batch in sample(pipeline, ["background"] * 2, [0, 1], config=settings(sample_batch=1), **SIZE):
        assert not torch.is_inference_mode_enabled(), "inference mode must not leak to the caller"
        assert isinstance(batch, Sampled)
    assert pipeline.scheduler is scheduler
    assert dict(scheduler.config) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_any_size_is_the_centre_of_the_next_size_that_the_vae_supports(pipeline: StableDiffusionPipeline) -> None:
    torch.manual_seed(0)
    pipeline.vae = AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), norm_num_groups=2, latent_channels=5,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()  # fmt: skip
    pipeline.vae_scale_factor = 8
    larger = draw(pipeline, [7], width=64, height=88)
    assert larger.std() > 1
    assert np.array_equal(draw(pipeline, [7], width=61, height=84), larger[:, 2:86, 1:62])


@pytest.mark.parametrize(("width", "height"), [(50, 150), (51, 149), (64, 192)])
def test_sizes_that_the_unet_cannot_halve_evenly_are_supported(
    pipeline: StableDiffusionPipeline, width: int, height: int
) -> None:
    sampled = draw(pipeline, [0, 1], width=width, height=height, config=settings(steps=1))
    assert sampled.shape == (2, height, width, 3)
    assert sampled.dtype == np.uint8
    assert (sampled.std(axis=(1, 2)).max(axis=1) > 5).all()


def test_the_papers_size_is_exact(pipeline: StableDiffusionPipeline) -> None:
    assert draw(pipeline, [0], width=200, height=600, config=settings(steps=1, guidance=1)).shape == (1, 600, 200, 3)


def test_without_guidance_there_is_no_unconditional_pass(pipeline: StableDiffusionPipeline) -> None:
    sizes: list[int] = []
    pipeline.unet.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    plain = draw(pipeline, [0, 1], config=settings(guidance=1))
    assert sizes == [2, 2, 2, 2]
    assert np.array_equal(plain, draw(pipeline, [0, 1], config=settings(guidance=1, negative_prompt="dark steel")))
    sizes.clear()
    guided = draw(pipeline, [0, 1], config=settings(guidance=5))
    assert sizes == [4, 4, 4, 4]
    assert max_difference(guided, draw(pipeline, [0, 1], config=settings(guidance=5, negative_prompt="dark steel"))) > 1


def test_every_prompt_is_encoded_once(pipeline: StableDiffusionPipeline) -> None:
    read: list[int] = []
    pipeline.text_encoder.register_forward_pre_hook(lambda module, given: read.append(len(given[0])))
    draw(pipeline, [0, 1, 2], prompts=["background", "cracked", "background"], config=settings(sample_batch=1))
    assert read == [1, 1, 1], "two prompts and the unconditional one"


def test_clip_skip_changes_the_image(pipeline: StableDiffusionPipeline) -> None:
    assert max_difference(draw(pipeline, [0]), draw(pipeline, [0], clip_skip=2)) > 1


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_non_finite_image_is_reported_and_black(pipeline: StableDiffusionPipeline, poison: float) -> None:
    def poison_output(module: torch.nn.Module, given: object, result: Any) -> None:
        result.sample[1] = poison  # a tanh in the VAE hides infinity

    pipeline.unet.register_forward_hook(poison_output)
    config = settings(steps=1, guidance=1, scheduler="dpm++")
    (batch,) = sample(pipeline, ["background"] * 3, [0, 1, 2], config=config, **SIZE)
    assert batch.finite.tolist() == [True, False, True]
    assert (batch.images[1] == 0).all()
    assert (batch.images[[0, 2]].std(axis=(1, 2, 3)) > 5).all()


def test_an_overflow_in_the_vae_is_reported(pipeline: StableDiffusionPipeline) -> None:
    pipeline.vae.decoder.layers[-1].bias.data.fill_(float("inf"))
    (batch,) = sample(pipeline, ["background"], [0], config=settings(), **SIZE)
    assert not batch.finite.any()


def test_both_solvers_converge_to_the_same_image(pipeline: StableDiffusionPipeline) -> None:
    def sampled(solver: str, steps: int) -> np.ndarray:
        return draw(pipeline, [0], config=settings(scheduler=solver, steps=steps, guidance=1)).astype(int)

    limit = sampled("dpm++", 40)
    assert np.abs(sampled("ddim", 100) - limit).mean() < 0.6
    assert np.abs(sampled("ddim", 4) - limit).mean() > 2


@pytest.mark.parametrize("solver", ["dpm++", "ddim"])
def test_sampling_begins_at_pure_noise_if_the_schedule_ends_there(
    pipeline: StableDiffusionPipeline, solver: str
) -> None:
    expected = draw(pipeline, [0], config=settings(scheduler=solver))
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="leading")
    assert np.array_equal(expected, draw(pipeline, [0], config=settings(scheduler=solver)))


@pytest.mark.parametrize("solver", ["dpm++", "ddim"])
def test_options_of_the_bases_scheduler_neither_clip_nor_add_noise(
    pipeline: StableDiffusionPipeline, solver: str
) -> None:
    pipeline.scheduler = PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **EPSILON)
    expected = draw(pipeline, [0], config=settings(scheduler=solver))
    others = [DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **EPSILON)]
    if solver == "ddim":
        others = [
            DDIMScheduler(clip_sample=clip, thresholding=clip, set_alpha_to_one=False, **EPSILON)
            for clip in (False, True)
        ]
    for pipeline.scheduler in others:
        assert np.array_equal(expected, draw(pipeline, [0], config=settings(scheduler=solver)))


def test_steps_that_do_not_fit_the_schedule_are_rejected(pipeline: StableDiffusionPipeline) -> None:
    def begin(**changes: Any) -> None:
        sample(pipeline, ["background"], [0], config=settings(**changes), **SIZE)

    begin(steps=1000, scheduler="ddim")
    begin(steps=600, scheduler="dpm++")
    with pytest.raises(InputError, match=r"steps = 600: ddim needs a divisor of the 1000 .* give 500"):
        begin(steps=600, scheduler="ddim")
    pipeline.scheduler = DDIMScheduler(timestep_spacing="leading", **EPSILON)  # its first step would be number 1000
    with pytest.raises(InputError, match=r"steps = 1000.*less than 1000"):
        begin(steps=1000, scheduler="ddim")
    pipeline.scheduler = DDIMScheduler(num_train_timesteps=100)
    with pytest.raises(InputError, match=r"steps = 101.*less than 100 "):
        begin(steps=101, scheduler="dpm++")


def test_invalid_arguments_are_rejected_by_the_call(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(InputError, match="32x0: width and height"):
        sample(pipeline, ["background"], [0], width=32, height=0, config=settings())
    with pytest.raises(InputError, match="has 52 tokens"):
        sample(pipeline, ["background " * 50], [0], config=settings(), **SIZE)
    with pytest.raises(InputError, match="has 52 tokens"):
        sample(pipeline, ["background"], [0], config=settings(negative_prompt="background " * 50), **SIZE)
    with pytest.raises(InputError, match="clip_skip = 3"):
        sample(pipeline, ["background"], [0], config=settings(), clip_skip=3, **SIZE)
    with pytest.raises(ValueError, match="2 seeds"):
        sample(pipeline, ["background"], [0, 1], config=settings(), **SIZE)
    with pytest.raises(ValueError, match="not resolved"):
        sample(pipeline, ["background"], [0], config=SamplingConfig(), **SIZE)


def test_none_becomes_the_bases_default_and_other_values_stay() -> None:
    embedded, other = SamplingConfig().resolved("embedded"), SamplingConfig().resolved("sd")
    assert (embedded.guidance, embedded.steps, embedded.scheduler) == (3.0, 12, "dpm++")
    assert (other.guidance, other.steps, other.scheduler) == (7.5, 50, "ddim")
    given = SamplingConfig(guidance=1, steps=7, scheduler="ddim", negative_prompt="a", sample_batch=2)
    assert given.resolved("embedded") == given.resolved("sd") == given


@pytest.mark.parametrize(
    "wrong", [{"guidance": 0.5}, {"guidance": 51}, {"guidance": float("nan")}, {"steps": 0}, {"steps": 1001},
              {"scheduler": "pndm"}, {"sample_batch": 0}, {"step": 3}],
)  # fmt: skip
def test_settings_out_of_range_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SamplingConfig(**wrong)


def test_image_seeds_are_distinct_exact_in_json_and_not_memsegs() -> None:
    seeds = [image_seed(seed, number) for seed in (0, 1) for number in range(200)]
    assert len(set(seeds)) == 400
    assert all(0 <= seed < 2**53 for seed in seeds)
    assert not set(seeds) & {seed for _, seed in plan(3, 200, 0)}
    assert image_seed(1, 5) == 8433619828608469, "existing pools must be reproducible"


def test_a_negative_seed_is_rejected() -> None:
    for seed, number in ((-1, 0), (0, -1)):
        with pytest.raises(InputError, match="0 or more"):
            image_seed(seed, number)
