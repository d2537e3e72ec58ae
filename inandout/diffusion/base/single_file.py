"""A Stable Diffusion 1 as one `.safetensors` file in the naming of its first release, as it is traded."""

from pathlib import Path

from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError

from inandout.diffusion.base.folder import OPTIONS, check_configuration, check_whole, quiet, tensor_names
from inandout.errors import InputError

_PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}


def open_single_file(path: Path, configuration: Path) -> StableDiffusionPipeline:
    """Load a file; shapes, schedule and tokenizer are what the folder `configuration` says. Never the network.

    Raises:
        InputError: it is no safetensors file, no whole Stable Diffusion 1, or does not fit the configuration.
    """
    parts = check_configuration(configuration, str(configuration))
    counts = _count_tensors(path)
    if absent := [_PREFIXES[part] for part, count in counts.items() if not count]:
        raise InputError(
            f"{path}: not a whole Stable Diffusion 1 in its first release's naming, as it has no tensor that begins "
            f"with {' or '.join(absent)}; give another file, or a folder in diffusers' format"
        )
    if parts["vae"][-1] != "AutoencoderKL":
        raise InputError(f"{configuration}: its VAE is an {parts['vae'][-1]}; the one of {path} is an AutoencoderKL")
    try:
        with quiet():
            pipeline = StableDiffusionPipeline.from_single_file(
                str(path), config=str(configuration), requires_safety_checker=False, **OPTIONS
            )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: does not fit the configuration {configuration} ({error})") from error
    check_whole(pipeline, counts, str(path))
    return pipeline


def _count_tensors(path: Path) -> dict[str, int]:
    """Part to the number of its tensors in the file."""
    try:
        names = tensor_names(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not a safetensors file ({error}); a pickle does not become one by its name: convert it"
        ) from error
    return {part: sum(name.startswith(prefix) for name in names) for part, prefix in _PREFIXES.items()}
