"""The base model as a folder in diffusers' format, and pictures made with it."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import nn

from inandout.diffusion.autoencoder import build_vae
from inandout.diffusion.averages import Averages
from inandout.diffusion.captions import vocabulary
from inandout.diffusion.fidelity import Pictures
from inandout.diffusion.latents import FACTOR, surface_components
from inandout.diffusion.networks import build_scheduler, build_text_encoder, build_unet
from inandout.diffusion.pretrain_unet import Student
from inandout.diffusion.words import build_tokenizer
from inandout.errors import InputError

EMBEDDED = Path(__file__).parent / "surface-diffusion"
"""The base that is shipped with the package."""

GUIDANCE, STEPS = 3.0, 20
"""Guidance and number of steps that the embedded base is measured with."""


def new_vae(seed: int) -> AutoencoderTiny:
    """The VAE with an untrained decoder."""
    return build_vae(surface_components(), seed)


def new_student(vae: AutoencoderTiny, seed: int) -> Student:
    """Untrained UNet and text encoder around a VAE."""
    tokenizer = build_tokenizer(vocabulary())
    text_encoder, unet = build_text_encoder(len(tokenizer), seed), build_unet(seed + 1)
    averages = Averages(nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}))
    return Student(unet, text_encoder, tokenizer, vae, build_scheduler(), averages)


def assemble(student: Student) -> StableDiffusionPipeline:
    """A pipeline of the running averages, which are copied, with DPM-Solver++ as its scheduler."""
    parts = deepcopy(student.parts())
    parts.load_state_dict(student.averages.values)
    parts.eval()
    pipeline = StableDiffusionPipeline(
        vae=student.vae, text_encoder=parts["text_encoder"], tokenizer=student.tokenizer, unet=parts["unet"],
        scheduler=DPMSolverMultistepScheduler.from_config(student.scheduler.config),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    return _quiet(pipeline)


def load_base(folder: Path = EMBEDDED) -> StableDiffusionPipeline:
    """Load a folder in diffusers' format; never the network, never a pickle.

    Raises:
        InputError: the folder is not such a folder.
    """
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: not a Stable Diffusion in diffusers' folder format ({error})") from error
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    return _quiet(pipeline)


def sample(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    width: int = 64,
    height: int = 64,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch_size: int = 8,
) -> Iterator[Pictures]:
    """Make pictures, a batch (N, `height`, `width`, 3) at a time; one depends on its prompt and seed alone.

    (Within rounding: sums of another batch size may round differently.)
    """
    if width % (8 * FACTOR) or height % (8 * FACTOR):
        raise InputError(f"{width}x{height}: width and height must be divisible by {8 * FACTOR}")
    for start in range(0, len(prompts), batch_size):
        chosen = slice(start, start + batch_size)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[chosen]]
        made = pipeline(
            prompt=list(prompts[chosen]), generator=generators, width=width, height=height,
            num_inference_steps=steps, guidance_scale=guidance, output_type="np",
        )  # fmt: skip
        yield (made.images * 255).round().astype("uint8")


def _quiet(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
