"""Open a Stable Diffusion from one `.safetensors` file with the tensor names of the original release."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import SafetensorError

from inandout.diffusion.base.config import check_configuration
from inandout.diffusion.base.folder import SD_OPTIONS, XL_OPTIONS, check_complete, quiet, tensor_names
from inandout.diffusion.pipeline import Pipeline
from inandout.errors import InputError

_PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
_TEXT_ENCODERS = {
    "1": {"text_encoder": "cond_stage_model.transformer."},
    "2": {"text_encoder": "cond_stage_model.model."},
    "XL": {"text_encoder": "conditioner.embedders.0.transformer.", "text_encoder_2": "conditioner.embedders.1.model."},
}
"""Version to component to the prefix of its tensors. Those that end in `model.` are OpenCLIP's."""
_NOT_READ = ("logit_scale", "cond_stage_model.model.text_projection")
"""Ends of names of tensors that the text encoders of diffusers do not have."""
_LAST_LAYER = "cond_stage_model.model.transformer.resblocks.23."
"""Layer of Stable Diffusion 2 that its UNet never reads and diffusers leaves out."""


def open_single_file(path: Path, configuration: Path) -> Pipeline:
    """Load a single file; shapes, noise schedule and tokenizers come from the folder `configuration`.

    The network is not used.

    Raises:
        InputError: the file is not a complete Stable Diffusion 1, 2 or XL in safetensors format, or does not fit the
            configuration.
    """
    parts = check_configuration(configuration, str(configuration))
    xl = "text_encoder_2" in parts
    counts = _count_tensors(path, xl)
    if parts["vae"][-1] != "AutoencoderKL":
        raise InputError(
            f"{configuration}: its VAE is an {parts['vae'][-1]}, but {path} needs an AutoencoderKL; give another "
            "base_config"
        )
    pipeline_class: Any = StableDiffusionXLPipeline if xl else StableDiffusionPipeline
    options = XL_OPTIONS if xl else SD_OPTIONS
    try:
        with quiet():
            pipeline: Pipeline = pipeline_class.from_single_file(str(path), config=str(configuration), **options)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: does not fit the configuration {configuration} ({error}); give the matching base_config"
        ) from error
    check_complete(pipeline, counts, str(path))
    return pipeline


def _count_tensors(path: Path, xl: bool) -> dict[str, int]:
    """Return the number of tensors of each component in diffusers' format.

    Raises:
        InputError: the file is not in safetensors format, or lacks a component.
    """
    try:
        names = tensor_names(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a safetensors file ({error}); renaming a pickle does not convert it, so convert it first"
        ) from error
    open_clip = any(name.startswith(_TEXT_ENCODERS["2"]["text_encoder"]) for name in names)
    version = "XL" if xl else "2" if open_clip else "1"
    prefixes = _PREFIXES | _TEXT_ENCODERS[version]
    counts = {part: _count(names, prefix) for part, prefix in prefixes.items()}
    if missing := [prefixes[part] for part, count in counts.items() if not count]:
        raise InputError(
            f"{path}: not a complete Stable Diffusion {version} with the original tensor names: no tensor name begins "
            f"with {' or '.join(missing)}; give another file, or the base_config of its version"
        )
    return counts


def _count(names: Sequence[str], prefix: str) -> int:
    """Return the number of tensors with a prefix in diffusers' format, where OpenCLIP's queries, keys and values are
    apart.
    """
    read = [name for name in names if name.startswith(prefix) and not name.endswith(_NOT_READ)]
    read = [name for name in read if not name.startswith(_LAST_LAYER)]
    return len(read) + 2 * sum(".attn.in_proj_" in name for name in read)
