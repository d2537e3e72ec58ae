"""Initialise the parts of the embedded base, and assemble them as a pipeline."""

from copy import deepcopy
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DPMSolverMultistepScheduler, StableDiffusionPipeline
from torch import nn

from inandout.diffusion.base.folder import open_folder
from inandout.diffusion.pipeline import is_inpainting, is_xl
from inandout.diffusion.pretrain.build_vae import build_vae
from inandout.diffusion.pretrain.captions import vocabulary
from inandout.diffusion.pretrain.ema import ExponentialMovingAverage
from inandout.diffusion.pretrain.networks import build_scheduler, build_text_encoder, build_unet
from inandout.diffusion.pretrain.pca_latents import surface_components
from inandout.diffusion.pretrain.tokenizer import build_tokenizer
from inandout.diffusion.pretrain.train_unet import TrainState
from inandout.errors import InputError


def new_vae(seed: int) -> AutoencoderTiny:
    """Return the VAE with an untrained decoder."""
    return build_vae(surface_components(), seed)


def new_train_state(vae: AutoencoderTiny, seed: int) -> TrainState:
    """Return an untrained UNet and text encoder for a VAE."""
    tokenizer = build_tokenizer(vocabulary())
    text_encoder, unet = build_text_encoder(len(tokenizer), seed), build_unet(seed + 1)
    ema = ExponentialMovingAverage(nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}))
    return TrainState(unet, text_encoder, tokenizer, vae, build_scheduler(), ema)


def load_train_state(folder: Path) -> TrainState:
    """Load a base that `pretrain` wrote, to continue its training; the EMA starts from its weights.

    Raises:
        InputError: the folder holds another base.
    """
    pipeline = open_folder(folder, str(folder))
    if not isinstance(pipeline.vae, AutoencoderTiny) or is_inpainting(pipeline) or is_xl(pipeline):
        raise InputError(f"start = {folder}: is not a base that pretrain wrote; give such a folder, or leave it empty")
    for part in (pipeline.unet, pipeline.vae):
        part.register_to_config(_name_or_path="")  # or the old path would be saved with the new weights
    unet = pipeline.unet.to(memory_format=torch.channels_last)
    ema = ExponentialMovingAverage(nn.ModuleDict({"unet": unet, "text_encoder": pipeline.text_encoder}))
    return TrainState(unet, pipeline.text_encoder, pipeline.tokenizer, pipeline.vae, build_scheduler(), ema)


def assemble(train_state: TrainState) -> StableDiffusionPipeline:
    """Return a pipeline with copies of the EMA weights and DPM-Solver++ as scheduler."""
    parts = deepcopy(train_state.parts())
    parts.load_state_dict(train_state.ema.values)
    parts.eval()
    pipeline = StableDiffusionPipeline(
        vae=train_state.vae, text_encoder=parts["text_encoder"], tokenizer=train_state.tokenizer, unet=parts["unet"],
        scheduler=DPMSolverMultistepScheduler.from_config(train_state.scheduler.config),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
