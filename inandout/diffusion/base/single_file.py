"""Open a Stable Diffusion from one `.safetensors` file with the tensor names of the original release."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import SafetensorError

from inandout.diffusion.base.config import Kind, kind_of_folder
from inandout.diffusion.base.files import tensor_names
from inandout.diffusion.base.folder import SD_OPTIONS, XL_OPTIONS, check_complete, quiet
from inandout.diffusion.pipeline import Pipeline
from inandout.errors import InputError

_PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
_TEXT_ENCODERS: dict[Kind, dict[str, str]] = {
    "sd": {"text_encoder": "cond_stage_model.transformer."},
    "sd2": {"text_encoder": "cond_stage_model.model."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}
"""Kind to component to the prefix of its tensors. Those that end in `model.` are OpenCLIP's."""
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
    kind = kind_of_folder(configuration, str(configuration))
    if kind == "embedded":
        raise InputError(
            f"{configuration}: its VAE is an AutoencoderTiny, but {path} needs an AutoencoderKL; give another "
            "base_config"
        )
    counts = _count_tensors(path, _PREFIXES | _TEXT_ENCODERS[kind])
    pipeline_class: Any = StableDiffusionXLPipeline if kind == "sdxl" else StableDiffusionPipeline
    options = XL_OPTIONS if kind == "sdxl" else SD_OPTIONS
    try:
        with quiet():
            pipeline: Pipeline = pipeline_class.from_single_file(str(path), config=str(configuration), **options)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: does not fit the configuration {configuration} ({error}); give the matching base_config"
        ) from error
    check_complete(pipeline, counts, str(path))
    return pipeline


def _count_tensors(path: Path, prefixes: dict[str, str]) -> dict[str, int]:
    """Return the number of tensors of each component, by the prefix of their names, in diffusers' format.

    Raises:
        InputError: the file is not in safetensors format, or lacks a component.
    """
    try:
        names = tensor_names(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a safetensors file ({error}); renaming a pickle does not convert it, so convert it first"
        ) from error
    counts = {part: _count(names, prefix) for part, prefix in prefixes.items()}
    if missing := [prefixes[part] for part, count in counts.items() if not count]:
        raise InputError(
            f"{path}: not a complete Stable Diffusion of the version of base_config with the original tensor names: "
            f"no tensor name begins with {' or '.join(missing)}; give another file, or the base_config of its version"
        )
    return counts


def _count(names: Sequence[str], prefix: str) -> int:
    """Return the number of tensors with a prefix in diffusers' format, where OpenCLIP's queries, keys and values are
    apart.
    """
    read = [name for name in names if name.startswith(prefix) and not name.endswith(_NOT_READ)]
    read = [name for name in read if not name.startswith(_LAST_LAYER)]
    return len(read) + 2 * sum(".attn.in_proj_" in name for name in read)
