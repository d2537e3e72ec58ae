"""Open a Stable Diffusion 1 from one `.safetensors` file with the tensor names of the original release."""

from pathlib import Path

from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError

from inandout.diffusion.base.config import check_configuration
from inandout.diffusion.base.folder import SD_OPTIONS, check_complete, quiet, tensor_names
from inandout.errors import InputError

_PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}


def open_single_file(path: Path, configuration: Path) -> StableDiffusionPipeline:
    """Load a single file; shapes, noise schedule and tokenizer come from the folder `configuration`.

    The network is not used.

    Raises:
        InputError: the file is not a complete Stable Diffusion 1 in safetensors format, or does not fit the
            configuration.
    """
    parts = check_configuration(configuration, str(configuration))
    counts = _count_tensors(path)
    if missing := [_PREFIXES[part] for part, count in counts.items() if not count]:
        raise InputError(
            f"{path}: not a complete Stable Diffusion 1 with the original tensor names: no tensor name begins "
            f"with {' or '.join(missing)}; give another file, or, for version 2 or XL, a folder in diffusers' format"
        )
    if "text_encoder_2" in parts:
        raise InputError(
            f"{configuration}: is of an SDXL, which is only read from a folder in diffusers' format; give one"
        )
    if parts["vae"][-1] != "AutoencoderKL":
        raise InputError(
            f"{configuration}: its VAE is an {parts['vae'][-1]}, but {path} needs an AutoencoderKL; give another "
            "base_config"
        )
    try:
        with quiet():
            pipeline = StableDiffusionPipeline.from_single_file(str(path), config=str(configuration), **SD_OPTIONS)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: does not fit the configuration {configuration} ({error}); give the matching base_config"
        ) from error
    check_complete(pipeline, counts, str(path))
    return pipeline


def _count_tensors(path: Path) -> dict[str, int]:
    """Return the number of tensors of each component in the file."""
    try:
        names = tensor_names(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a safetensors file ({error}); renaming a pickle does not convert it, so convert it first"
        ) from error
    return {part: sum(name.startswith(prefix) for name in names) for part, prefix in _PREFIXES.items()}
