"""Sample images from a base, with or without a merged adapter, from prompts and seeds, in batches."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
)
from torch import Tensor
from tqdm import tqdm

from inandout.data.images import ImageBatch
from inandout.diffusion.pipeline import Pipeline, is_inpainting
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.guidance import Composition, Guidance, Predict, composed_guidance, plain_guidance
from inandout.diffusion.sample.inpaint import Canvas, EncodedCanvas, composite, empty_canvas, encode_canvas
from inandout.diffusion.vae import to_images
from inandout.errors import InputError
from inandout.seeds import PoolStream
from inandout.seeds import image_seed as seed_in_stream

Scheduler: TypeAlias = DPMSolverMultistepScheduler | DDIMScheduler


class Sampled(NamedTuple):
    """A batch of images."""

    images: ImageBatch
    """(N, height, width, 3); black if not finite."""
    finite: npt.NDArray[np.bool_]
    """(N,): False if NaN or infinity occurred during sampling, so the image is unusable."""


def image_seed(seed: int, number: int) -> int:
    """Return the seed of candidate `number`, from 0, of a pool of `seed`: below 2^53, exact in JSON and floating point.

    Raises:
        InputError: `seed` or `number` is negative.
    """
    if seed < 0 or number < 0:
        raise InputError(f"seed = {seed} and number = {number} must be 0 or more")
    return seed_in_stream(seed, PoolStream.DIFFUSION, number)


def sample(
    pipeline: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    width: int,
    height: int,
    config: SamplingConfig,
    clip_skip: int = 1,
    canvas: Canvas | None = None,
    composition: Composition | None = None,
) -> Iterator[Sampled]:
    """Generate one image per prompt, `config.sample_batch` at a time, on the pipeline's device.

    An image is a function of its prompt and seed: its initial noise comes from a separate CPU generator, and no noise
    is added later. The same position in the same batch gives the same image bit for bit. In another batch it may differ
    by one grey level, because sums are rounded in another order.

    Args:
        pipeline: not modified; its scheduler provides only the noise schedule.
        prompts: one per image.
        seeds: one per image, 0 or more.
        width: in px, at least 1. The image is generated with the next size that the VAE supports, and its centre is
            cropped. (The UNet accepts any size: it upsamples to the sizes of the way down.)
        height: as `width`.
        config: resolved, i.e. without None.
        clip_skip: as in `prompt_states`; the value of the fine-tuning.
        canvas: images of this size, one per prompt, to inpaint inside their masks; None generates whole images. An
            inpainting base generates them inside a mask that covers a grey image.
        composition: composed guidance with this base; None = plain guidance.

    Raises:
        InputError: a prompt is too long, a side is less than 1, the base's schedule has fewer steps, `clip_skip` is out
            of range, or a composition has a negative prompt. It is raised by the call, before the first batch is
            requested.
    """
    if width < 1 or height < 1:
        raise InputError(f"{width}x{height}: width and height must be at least 1 px")
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds were given; give one of each per image")
    scheduler = _build_scheduler(pipeline, config)
    scale = config.guidance or 1.0
    if composition is None:
        guidance = plain_guidance(pipeline, prompts, config.negative_prompt, scale, clip_skip)
    elif config.negative_prompt:
        raise InputError(
            f"negative_prompt = {config.negative_prompt!r}: composed guidance uses the class prompt instead; leave it "
            "empty, or give guidance_mode=plain"
        )
    else:
        guidance = composed_guidance(pipeline, composition, prompts, scale, clip_skip)
    return _batches(pipeline, scheduler, guidance, prompts, seeds, (width, height), config, canvas)


def _batches(
    pipeline: Pipeline,
    scheduler: Scheduler,
    guidance: Guidance,
    prompts: Sequence[str],
    seeds: Sequence[int],
    size: tuple[int, int],
    config: SamplingConfig,
    canvas: Canvas | None,
) -> Iterator[Sampled]:
    with tqdm(total=len(prompts), desc="images", unit="image", disable=None) as bar:
        for start in range(0, len(prompts), config.sample_batch):
            batch = prompts[start : start + config.sample_batch]
            noise = _noise(pipeline, seeds[start : start + config.sample_batch], size)
            part = canvas and canvas.part(start, start + len(batch))
            encoded = encode_canvas(pipeline, part, noise) if part else None
            if part is None and is_inpainting(pipeline):
                encoded = empty_canvas(pipeline, noise)
            latents = _denoise(guidance(batch), scheduler, noise, encoded, config.strength if part else 1.0)
            sampled = _decode(pipeline.vae, latents, size)
            yield sampled._replace(images=composite(part, sampled.images)) if part else sampled
            bar.update(len(batch))


def _build_scheduler(pipeline: Pipeline, config: SamplingConfig) -> Scheduler:
    """Return the configured solver with the base's noise schedule, without added noise, clipping or thresholding.

    If the last step of the schedule is pure noise, sampling must begin there ("trailing", Lin 2024).
    """
    if config.guidance is None or config.steps is None or config.scheduler is None:
        raise ValueError("the configuration is not resolved; pass config.resolved(kind)")
    base_config = pipeline.scheduler.config
    overrides = {"timestep_spacing": "trailing"} if base_config.get("rescale_betas_zero_snr") else {}
    if config.scheduler == "ddim":
        scheduler = DDIMScheduler.from_config(base_config, clip_sample=False, thresholding=False, **overrides)
    else:
        scheduler = DPMSolverMultistepScheduler.from_config(base_config, algorithm_type="dpmsolver++", **overrides)
    _set_steps(scheduler, config.steps, pipeline.device)
    return scheduler


def _set_steps(scheduler: Scheduler, steps: int, device: torch.device) -> None:
    """Set the timesteps.

    diffusers' DDIM always decreases by `trained // steps`, whatever its timesteps are: with 600 of 1,000 steps an image
    keeps much of its noise (measured: 3.9 grey levels from the limit of many steps, against 0.1 with 250).
    """
    trained = scheduler.config.num_train_timesteps
    if isinstance(scheduler, DDIMScheduler) and trained % steps:
        divisor = max(number for number in range(1, steps) if trained % number == 0)
        raise InputError(
            f"steps = {steps}: ddim needs a divisor of the {trained} steps of the base's schedule; give {divisor}, or "
            "use dpm++"
        )
    if steps <= trained:
        scheduler.set_timesteps(steps, device=device)
    if steps > trained or int(scheduler.timesteps.max()) >= trained:
        raise InputError(f"steps = {steps}: must be less than {trained} with the base's schedule; reduce steps")


def _noise(pipeline: Pipeline, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Return standard normal latents (N, C, H, W) that cover `size`, each from its own seed."""
    width, height = (-(-side // pipeline.vae_scale_factor) for side in size)
    shape = (1, pipeline.unet.config.out_channels, height, width)
    latents = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.cat(latents).to(pipeline.device)


@torch.inference_mode()
def _denoise(
    predict: Predict, scheduler: Scheduler, noise: Tensor, encoded: EncodedCanvas | None, strength: float
) -> Tensor:  # fmt: skip
    """Denoise latents (N, C, H, W) in fp32 from noise of this shape; with a canvas, blend them outside the masks.

    With a strength below 1, the first steps are left out and the others begin with the noised canvas, as in diffusers.
    """
    scheduler = deepcopy(scheduler)  # it stores its last steps
    times, latents = scheduler.timesteps, noise * scheduler.init_noise_sigma
    if encoded and strength < 1:
        times = times[len(times) - max(int(len(times) * strength), 1) :]
        latents = scheduler.add_noise(encoded.latents, noise, times[:1].expand(len(noise)))
    for time, next_time in zip(times, [*times[1:], None], strict=True):
        model_input = scheduler.scale_model_input(latents, time)
        model_input = torch.cat([model_input, encoded.conditioning], dim=1) if encoded else model_input
        latents = scheduler.step(predict(model_input, time), time, latents).prev_sample
        latents = encoded.blend(latents, next_time, scheduler) if encoded else latents
    return latents


@torch.inference_mode()
def _decode(vae: AutoencoderKL | AutoencoderTiny, latents: Tensor, size: tuple[int, int]) -> Sampled:
    """Decode latents (N, C, H, W) and crop the centre; latents are checked, too, as a VAE's tanh hides infinity."""
    decoded = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample.float()
    finite = (latents.isfinite().flatten(1).all(dim=1) & decoded.isfinite().flatten(1).all(dim=1)).cpu()
    width, height = size
    top, left = (decoded.shape[2] - height) // 2, (decoded.shape[3] - width) // 2
    middle = decoded[:, :, top : top + height, left : left + width].cpu()
    middle[~finite] = -1
    return Sampled(to_images(middle), finite.numpy())
