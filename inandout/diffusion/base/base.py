"""The base model: the embedded one, a folder, a single file, or a pinned revision on the hub."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from inandout.checkpoint import refuse_pickle
from inandout.data.manifest import digest, digests
from inandout.diffusion.base.config import ALLOWED, BaseConfig, Kind, choose_kind
from inandout.diffusion.base.folder import CONFIGURATION, PARTS, WEIGHTS, files_of, find_weights, open_folder
from inandout.diffusion.base.hub import check_hub_id, fetch, is_hub_id
from inandout.diffusion.base.single_file import open_single_file
from inandout.diffusion.pipeline import Pipeline, adaptable_models, is_inpainting, is_xl, move
from inandout.errors import InputError
from inandout.hardware import Hardware, HardwareConfig

EMBEDDED = Path(__file__).parents[1] / "surface-diffusion"
"""Folder of the base model that is shipped with the package."""


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
    _check(config)
    if _is_single_file(config):
        pipeline = open_single_file(Path(config.base), _resolve_folder(config.base_config, CONFIGURATION, download))
    else:
        pipeline = open_folder(_resolve_folder(config.base, CONFIGURATION + WEIGHTS, download), config.base)
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


def base_identity(config: BaseConfig) -> str:
    """Return an identity of the base for looking up earlier results, without loading the model.

    It is `owner/name@revision` for a base on the hub, else 32 hexadecimal digits computed from the files.

    Raises:
        InputError: the base is missing or not a base model.
    """
    _check(config)
    if _is_single_file(config):
        return _hash([digest(Path(config.base)), _folder_identity(config.base_config, CONFIGURATION)])
    return _folder_identity(config.base, CONFIGURATION + WEIGHTS)


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


def _check(config: BaseConfig) -> None:
    """Raise an InputError if the name is invalid or a single file does not exist."""
    path = Path(config.base)
    if not path.is_dir():
        refuse_pickle(path)
    if config.base_config and not _is_single_file(config):
        raise InputError(
            f"base_config = {config.base_config}: applies only if base is a .safetensors file, but base = "
            f"{config.base}; remove base_config"
        )
    if _is_single_file(config) and not path.is_file():
        raise InputError(f"{path}: no such file{_looked_in(path)}; base must be {ALLOWED}")
    if _is_single_file(config) and not config.base_config:
        raise InputError(
            f"{path}: a single file has no configuration and no tokenizer; set base_config to a folder, or "
            "owner/name@<40 hex digits> on the hub, with both in diffusers' format"
        )


def _is_single_file(config: BaseConfig) -> bool:
    return config.base.lower().endswith(".safetensors") and not Path(config.base).is_dir()


def _resolve_folder(name: str, patterns: tuple[str, ...], download: bool) -> Path:
    """Return the folder with the files of a base that match `patterns`; download them if necessary."""
    return fetch(name, patterns, download) if _on_hub(name) else _local_folder(name)


def _folder_identity(name: str, patterns: tuple[str, ...]) -> str:
    if _on_hub(name):
        return "@".join(check_hub_id(name))
    folder = _local_folder(name)
    if not (folder / "model_index.json").is_file():
        raise InputError(f"{name}: model_index.json is missing; give a folder in diffusers' format")
    files = files_of(folder, patterns)
    if set(WEIGHTS) <= set(patterns):
        files = sorted(
            {*files_of(folder, CONFIGURATION), *(file for part in PARTS for file in find_weights(folder, part).files)}
        )
    return _hash(list(zip([path.relative_to(folder).as_posix() for path in files], digests(files), strict=True)))


def _on_hub(name: str) -> bool:
    return name != "embedded" and not Path(name).is_dir() and is_hub_id(name)


def _local_folder(name: str) -> Path:
    folder = EMBEDDED if name == "embedded" else Path(name)
    if not folder.is_dir():
        raise InputError(f"{name}: no such folder{_looked_in(folder)}; base must be {ALLOWED}")
    return folder


def _looked_in(path: Path) -> str:
    return "" if path.is_absolute() else f" in {Path.cwd()}"


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


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
