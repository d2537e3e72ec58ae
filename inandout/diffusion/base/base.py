"""The base model: the embedded one, a folder, one file, or a pinned revision on the hub, as one pipeline."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from pydantic import BaseModel, ConfigDict, Field

from inandout.checkpoint import refuse_pickle
from inandout.data.manifest import digest, digests
from inandout.diffusion.base.folder import CONFIGURATION, WEIGHTS, check_configuration, files_of, open_folder
from inandout.diffusion.base.hub import check_hub_id, fetch, is_hub_id
from inandout.diffusion.base.inpainting import is_inpainting
from inandout.diffusion.base.single_file import open_single_file
from inandout.errors import InputError

EMBEDDED = Path(__file__).parents[1] / "surface-diffusion"
"""The base that is shipped with the package."""

Kind = Literal["embedded", "sd"]
"""The small base of the package, or a Stable Diffusion from elsewhere."""

_ALLOWED = "'embedded', a folder in diffusers' format, owner/name@<40 hex digits> on the hub, or a .safetensors file"


class BaseConfig(BaseModel):
    """Which Stable Diffusion is fine-tuned and sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field("embedded", min_length=1, description=f"base model: {_ALLOWED}")
    base_config: str = Field(
        "",
        description="with a .safetensors file: the folder, or owner/name@<40 hex digits> on the hub, that holds its "
        "configuration and tokenizer in diffusers' format",
    )


@dataclass(frozen=True)
class Base:
    """A base that is ready to be computed with."""

    pipeline: StableDiffusionPipeline
    """fp32, in evaluation mode, UNet and VAE channels-last, without safety checker and progress bars."""
    fingerprint: str
    """32 hexadecimal digits, of its weights alone (`weights_fingerprint`)."""
    kind: Kind


def open_base(config: BaseConfig, download: bool = True) -> Base:
    """Load the base, downloading what the hub's cache lacks unless told not to; never a pickle.

    Raises:
        InputError: it is not there, a pickle, incomplete, or not a Stable Diffusion of version 1, for whole images or
            for inpainting.
        NotHereError: the hub's cache lacks it, and it is not to be had.
    """
    _check(config)
    if _is_single_file(config):
        pipeline = open_single_file(Path(config.base), _folder(config.base_config, CONFIGURATION, download))
    else:
        pipeline = open_folder(_folder(config.base, CONFIGURATION + WEIGHTS, download), config.base)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.eval()
    _check_channels(pipeline, config.base)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    if isinstance(pipeline.vae, AutoencoderKL):
        pipeline.vae.enable_slicing()  # decodes images one by one: its activations are the largest of all
    pipeline.set_progress_bar_config(disable=True)
    fingerprint = weights_fingerprint(pipeline)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    return Base(pipeline, fingerprint, kind_of_base(config.base))


def kind_of_base(name: str) -> Kind:
    """Kind of the base that is asked for by this name: a folder that `pretrain` wrote is like the embedded one.

    Raises:
        InputError: it is a folder of another kind of model.
    """
    index = Path(name) / "model_index.json"
    ours = index.is_file() and check_configuration(Path(name), name)["vae"][-1] == "AutoencoderTiny"
    return "embedded" if name == "embedded" or ours else "sd"


def base_identity(config: BaseConfig) -> str:
    """What the base is, told without loading it, for deciding whether a result exists already.

    `owner/name@revision` of one on the hub, else 32 hexadecimal digits of the files that are read.

    Raises:
        InputError: it is not there, or cannot be one.
    """
    _check(config)
    if _is_single_file(config):
        return _hash([digest(Path(config.base)), _folder_identity(config.base_config, CONFIGURATION)])
    return _folder_identity(config.base, CONFIGURATION + WEIGHTS)


def weights_fingerprint(pipeline: StableDiffusionPipeline) -> str:
    """First 32 hexadecimal digits of a SHA-256 of text encoder, UNet and VAE: names, shapes and values as fp32.

    So it does not depend on the files that they came from, nor on the order of their bytes in memory.
    """
    parts = {part: getattr(pipeline, part).state_dict() for part in ("text_encoder", "unet", "vae")}
    tensors = {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().float().numpy().tobytes())  # in C order, whatever the strides
    return total.hexdigest()[:32]


def _check(config: BaseConfig) -> None:
    """Refuse what can be refused by its name, and a file that is not there."""
    path = Path(config.base)
    if not path.is_dir():
        refuse_pickle(path)
    if config.base_config and not _is_single_file(config):
        raise InputError(
            f"base_config = {config.base_config}: is for a base that is one .safetensors file, which {config.base} "
            "is not; leave it out"
        )
    if _is_single_file(config) and not path.is_file():
        raise InputError(f"{path}: there is no such file; the base may be {_ALLOWED}")
    if _is_single_file(config) and not config.base_config:
        raise InputError(
            f"{path}: one file holds neither configuration nor tokenizer; name in base_config a folder, or "
            "owner/name@<40 hex digits> on the hub, that holds them in diffusers' format"
        )


def _is_single_file(config: BaseConfig) -> bool:
    return config.base.lower().endswith(".safetensors") and not Path(config.base).is_dir()


def _folder(name: str, patterns: tuple[str, ...], download: bool) -> Path:
    """Where the files of a base that match `patterns` lie, downloaded if need be."""
    return fetch(name, patterns, download) if _on_hub(name) else _local(name)


def _folder_identity(name: str, patterns: tuple[str, ...]) -> str:
    if _on_hub(name):
        return "@".join(check_hub_id(name))
    folder = _local(name)
    if not (folder / "model_index.json").is_file():
        raise InputError(f"{name}: no model_index.json in it, so not a base in diffusers' format; give another folder")
    files = files_of(folder, patterns)
    return _hash(list(zip([path.relative_to(folder).as_posix() for path in files], digests(files), strict=True)))


def _on_hub(name: str) -> bool:
    return name != "embedded" and not Path(name).is_dir() and is_hub_id(name)


def _local(name: str) -> Path:
    folder = EMBEDDED if name == "embedded" else Path(name)
    if not folder.is_dir():
        raise InputError(f"{name}: there is no such folder; the base may be {_ALLOWED}")
    return folder


def _check_channels(pipeline: StableDiffusionPipeline, name: str) -> None:
    """Of what is known to have other channels going in than the VAE gives, only models for inpainting can be used."""
    wanted, given = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
    if wanted != given and not is_inpainting(pipeline):
        raise InputError(
            f"{name}: its UNet takes {wanted} channels and its VAE gives {given}; a model for depth or for other "
            "images cannot be the base, so give the plain one or the one for inpainting"
        )


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
