"""The base model: the embedded one, a folder, a single file, or a pinned revision on the hub."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from inandout.diffusion.base.config import BaseConfig, Kind, choose_kind
from inandout.diffusion.base.files import CONFIGURATION, WEIGHTS
from inandout.diffusion.base.folder import open_folder
from inandout.diffusion.base.identity import check_base, is_single_file, resolve_folder
from inandout.diffusion.base.single_file import open_single_file
from inandout.diffusion.pipeline import Pipeline, adaptable_models, is_inpainting, is_xl, move
from inandout.errors import InputError
from inandout.hardware import Hardware, HardwareConfig


@dataclass(frozen=True)
class Base:
    """A base model that is ready for use."""

    pipeline: Pipeline
    """In evaluation mode, UNet and VAE channels-last, without safety checker and progress bars. The VAE is in fp32."""
    fingerprint: str
    """32 hexadecimal digits that identify the weights (`weights_fingerprint`)."""
    kind: Kind


def open_base(config: BaseConfig, hardware: Hardware | None = None, *, download: bool = True) -> Base:
    """Load the base model. Pickles are never loaded.

    Args:
        config: which base.
        hardware: device of the models, and precision of UNet and text encoders; None = a GPU if there is one, in fp32.
        download: whether to download missing files of a hub model.

    Raises:
        InputError: the base is missing, incomplete, a pickle, or not a Stable Diffusion for text-to-image or
            inpainting.
        NotHereError: the files are not in the hub's cache and cannot be downloaded.
    """
    check_base(config)
    if is_single_file(config):
        pipeline = open_single_file(Path(config.base), resolve_folder(config.base_config, CONFIGURATION, download))
    else:
        pipeline = open_folder(resolve_folder(config.base, CONFIGURATION + WEIGHTS, download), config.base)
    for part in (pipeline.vae, *adaptable_models(pipeline).values()):
        part.eval()
    _check_channels(pipeline, config.base)
    _check_finite(pipeline, config.base)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    if isinstance(pipeline.vae, AutoencoderKL):
        pipeline.vae.enable_slicing()  # decodes images one by one: its activations are the largest of all
    pipeline.set_progress_bar_config(disable=True)
    fingerprint = weights_fingerprint(pipeline)
    move(pipeline, hardware or HardwareConfig(precision="fp32").open())
    kind = choose_kind(type(pipeline.vae).__name__, is_xl(pipeline), bool(pipeline.unet.config.use_linear_projection))
    return Base(pipeline, fingerprint, kind)


def weights_fingerprint(pipeline: Pipeline) -> str:
    """Return the first 32 hexadecimal digits of a SHA-256 of the text encoders, UNet and VAE.

    Names, shapes and fp32 values count; the file format and the memory layout do not.
    """
    models = {"vae": pipeline.vae, **adaptable_models(pipeline)}
    parts = {part: model.state_dict() for part, model in models.items()}
    tensors = {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().float().numpy().tobytes())  # in C order for any strides
    return total.hexdigest()[:32]


def _check_channels(pipeline: Pipeline, name: str) -> None:
    """Reject UNets whose input channels do not match the VAE, except inpainting UNets."""
    in_channels, latent_channels = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
    if in_channels != latent_channels and not is_inpainting(pipeline):
        raise InputError(
            f"{name}: the UNet has {in_channels} input channels and the VAE {latent_channels} latent channels; "
            "depth and image-conditioned models are not supported, so give a text-to-image or inpainting model"
        )


def _check_finite(pipeline: Pipeline, name: str) -> None:
    models = {"vae": pipeline.vae, **adaptable_models(pipeline)}
    for part, model in models.items():
        for weight, tensor in model.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise InputError(f"{name}: {weight} of the {part} has NaN or infinite values; download the base again")
