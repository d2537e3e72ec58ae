"""Images from a base, merged or not: from prompts and seeds, in batches."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from tqdm import tqdm

from inandout.data.images import ImageBatch
from inandout.diffusion.base.base import Kind
from inandout.diffusion.base.inpainting import require_text2img
from inandout.diffusion.prompts import check_prompt, prompt_states
from inandout.diffusion.sample.inpaint import Canvas, EncodedCanvas, composite, encode_canvas
from inandout.diffusion.vae import to_images
from inandout.errors import InputError
from inandout.seeds import PoolStream
from inandout.seeds import image_seed as seed_in_stream

Scheduler: TypeAlias = DPMSolverMultistepScheduler | DDIMScheduler

_DEFAULTS: dict[Kind, dict[str, object]] = {
    "embedded": {"guidance": 3.0, "steps": 20, "scheduler": "dpm++"},
    "sd": {"guidance": 7.5, "steps": 50, "scheduler": "ddim"},
}
"""What the embedded base is measured with, and what the paper samples Stable Diffusion with."""


class SamplingConfig(BaseModel):
    """How images are drawn from noise. None stands for what suits the base."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    negative_prompt: str = Field("", description="what guidance leads away from")
    guidance: float | None = Field(
        None, ge=1, le=50, description="weight of the prompt; 1 = no guidance, in half the time; none = by the base"
    )
    steps: int | None = Field(None, ge=1, le=1000, description="denoising steps of an image; none = by the base")
    scheduler: Literal["dpm++", "ddim"] | None = Field(
        None,
        description="DPM-Solver++ of second order (few steps) or DDIM with eta 0 (steps that divide the "
        "base's, such as 50); none = by the base",
    )
    sample_batch: int = Field(8, ge=1, le=1024, description="images that are drawn at once")

    def resolved(self, kind: Kind) -> "SamplingConfig":
        """The same without None."""
        return self.model_copy(update={name: v for name, v in _DEFAULTS[kind].items() if getattr(self, name) is None})


class Sampled(NamedTuple):
    """A batch of images."""

    images: ImageBatch
    """(N, height, width, 3); black where not finite."""
    finite: npt.NDArray[np.bool_]
    """(N,): no NaN and no infinity on the way to the image, so it can be used."""


def image_seed(seed: int, number: int) -> int:
    """Seed of candidate `number`, from 0, of a pool of `seed`: below 2^53, which JSON and floating point hold exactly.

    Raises:
        InputError: one of them is negative.
    """
    if seed < 0 or number < 0:
        raise InputError(f"seed = {seed} and number = {number} were given; both must be 0 or more")
    return seed_in_stream(seed, PoolStream.DIFFUSION, number)


def sample(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    width: int,
    height: int,
    config: SamplingConfig,
    clip_skip: int = 1,
    canvas: Canvas | None = None,
) -> Iterator[Sampled]:
    """Draw an image a prompt, `config.sample_batch` at a time, on the device that the pipeline is on.

    An image is a function of its prompt and its seed: the noise it begins with comes from a generator of its own, on
    the CPU, and no noise is added later. In the same place of the same batch it is the same bit for bit; in another
    batch it may differ by a grey level, as sums are rounded in another order.

    Args:
        pipeline: not changed; its scheduler gives the noise schedule alone.
        prompts: one an image.
        seeds: as many, 0 or more.
        width: in px, at least 1. What the VAE cannot make is made up to one of its patches larger, and the middle is
            cut out. (The UNet takes any size: it enlarges to the sizes that it had on the way down.)
        height: as `width`.
        config: resolved, that is without None.
        clip_skip: as in `prompt_states`; the value that the base was fine-tuned with.
        canvas: as many images of this size as prompts, to draw on inside their masks alone; without it whole
            images are drawn.

    Raises:
        InputError: a prompt is too long, a side less than 1, more steps than the base's schedule has, a `clip_skip`
            without a layer, or a base for inpainting without a canvas. (On the call, not when the first batch is asked
            for.)
    """
    if width < 1 or height < 1:
        raise InputError(f"{width}x{height}: width and height must be 1 px or more")
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds were given; an image needs one of each")
    if canvas is None:
        require_text2img(pipeline)
    for prompt in {*prompts, config.negative_prompt}:
        check_prompt(pipeline.tokenizer, prompt)
    scheduler = _build_scheduler(pipeline, config)
    states = _states_of([config.negative_prompt, *prompts], pipeline, clip_skip)
    return _batches(pipeline, scheduler, states, prompts, seeds, (width, height), config, canvas)


def _batches(
    pipeline: StableDiffusionPipeline,
    scheduler: Scheduler,
    states: Mapping[str, Tensor],
    prompts: Sequence[str],
    seeds: Sequence[int],
    size: tuple[int, int],
    config: SamplingConfig,
    canvas: Canvas | None,
) -> Iterator[Sampled]:
    guidance = config.guidance or 1.0
    unconditional = [config.negative_prompt] if guidance > 1 else []
    with tqdm(total=len(prompts), desc="images", unit="image", disable=None) as bar:
        for start in range(0, len(prompts), config.sample_batch):
            chosen = prompts[start : start + config.sample_batch]
            asked = torch.cat([states[prompt] for prompt in unconditional * len(chosen) + list(chosen)])
            noise = _noise(pipeline, seeds[start : start + config.sample_batch], size)
            part = canvas and canvas.part(start, start + len(chosen))
            encoded = part and encode_canvas(pipeline, part, noise)
            made = _decode(pipeline.vae, _denoise(pipeline.unet, scheduler, noise, asked, guidance, encoded), size)
            yield made._replace(images=composite(part, made.images)) if part else made
            bar.update(len(chosen))


@torch.inference_mode()
def _states_of(prompts: Sequence[str], pipeline: StableDiffusionPipeline, clip_skip: int) -> dict[str, Tensor]:
    """Distinct prompt to its states (1, tokens, width), each computed alone, so that they depend on no other."""
    return {
        prompt: prompt_states(pipeline.text_encoder, pipeline.tokenizer, [prompt], clip_skip)
        for prompt in dict.fromkeys(prompts)
    }


def _build_scheduler(pipeline: StableDiffusionPipeline, config: SamplingConfig) -> Scheduler:
    """The base's noise schedule under the solver of `config`, without what would make an image random or cut it off.

    Where the last step is pure noise, sampling must begin there ("trailing", Lin 2024).
    """
    if config.guidance is None or config.steps is None or config.scheduler is None:
        raise ValueError("the configuration is not resolved; give config.resolved(kind)")
    given = pipeline.scheduler.config
    spacing = {"timestep_spacing": "trailing"} if given.get("rescale_betas_zero_snr") else {}
    if config.scheduler == "ddim":
        scheduler = DDIMScheduler.from_config(given, clip_sample=False, thresholding=False, **spacing)
    else:
        scheduler = DPMSolverMultistepScheduler.from_config(given, algorithm_type="dpmsolver++", **spacing)
    _set_steps(scheduler, config.steps, pipeline.device)
    return scheduler


def _set_steps(scheduler: Scheduler, steps: int, device: torch.device) -> None:
    """Choose the timesteps.

    diffusers' DDIM goes down `trained // steps` at a time, wherever its timesteps are: with 600 of 1,000 an image
    keeps much of its noise (measured: 3.9 grey levels from the limit of many steps, against 0.1 with 250).
    """
    trained = scheduler.config.num_train_timesteps
    if isinstance(scheduler, DDIMScheduler) and trained % steps:
        divisor = max(number for number in range(1, steps) if trained % number == 0)
        raise InputError(
            f"steps = {steps}: ddim needs a number that divides the {trained} of the base's schedule, as {divisor} "
            "does; dpm++ takes any"
        )
    if steps <= trained:
        scheduler.set_timesteps(steps, device=device)
    if steps > trained or int(scheduler.timesteps.max()) >= trained:
        raise InputError(f"steps = {steps}: the base's schedule allows less than {trained}; lower it")


def _noise(pipeline: StableDiffusionPipeline, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) of standard normal latents that cover `size`, each from its own seed."""
    width, height = (-(-side // pipeline.vae_scale_factor) for side in size)
    shape = (1, pipeline.unet.config.out_channels, height, width)
    latents = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.cat(latents).to(pipeline.device)


@torch.inference_mode()
def _denoise(
    unet: UNet2DConditionModel,
    scheduler: Scheduler,
    noise: Tensor,
    states: Tensor,
    guidance: float,
    encoded: EncodedCanvas | None,
) -> Tensor:
    """Latents (N, C, H, W), fp32, from noise of that shape; with a canvas, outside its masks the canvas's.

    `states` are (N, tokens, width), or (2 N, ...) with the unconditional ones first where `guidance` is more than 1.
    """
    scheduler = deepcopy(scheduler)  # it remembers its last steps
    latents = noise * scheduler.init_noise_sigma
    for time, following in zip(scheduler.timesteps, [*scheduler.timesteps[1:], None], strict=True):
        seen = scheduler.scale_model_input(latents, time)
        seen = torch.cat([seen, encoded.beside], dim=1) if encoded else seen
        twice = seen.repeat(len(states) // len(latents), 1, 1, 1).contiguous(memory_format=torch.channels_last)
        noisy = twice.to(unet.dtype)
        predicted = unet(noisy, time, encoder_hidden_states=states.to(unet.dtype)).sample.float()
        if guidance > 1:
            without, with_ = predicted.chunk(2)
            predicted = without + guidance * (with_ - without)
        latents = scheduler.step(predicted, time, latents).prev_sample
        latents = encoded.keep(latents, following, scheduler) if encoded else latents
    return latents


@torch.inference_mode()
def _decode(vae: AutoencoderKL | AutoencoderTiny, latents: Tensor, size: tuple[int, int]) -> Sampled:
    """The middle of what latents (N, C, H, W) show. Non-finite latents are looked for, too: a tanh would hide them."""
    decoded = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample.float()
    finite = (latents.isfinite().flatten(1).all(dim=1) & decoded.isfinite().flatten(1).all(dim=1)).cpu()
    width, height = size
    top, left = (decoded.shape[2] - height) // 2, (decoded.shape[3] - width) // 2
    middle = decoded[:, :, top : top + height, left : left + width].cpu()
    middle[~finite] = -1
    return Sampled(to_images(middle), finite.numpy())
