"""Open a Stable Diffusion in diffusers' folder format."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError, safe_open

from inandout.diffusion.base.config import check_configuration
from inandout.errors import InputError, brief

CONFIGURATION = (
    "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
    "scheduler/scheduler_config.json", "tokenizer/*.json", "tokenizer/*.txt",
)  # fmt: skip
"""Files with the configuration of the components, and the tokenizer."""

_WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
WEIGHTS = tuple(_WEIGHTS.values())
"""Files with the weights of the components. Half-precision copies and pickles in the same folder are not read."""

OPTIONS = {
    "dtype": torch.float32, "safety_checker": None, "feature_extractor": None, "local_files_only": True,
    "disable_mmap": True,
}  # fmt: skip
"""How pipelines are loaded. The safety checker is left out because it blackens images of some textures that it takes
for unsafe content. Files are read, not mapped: a mapped file stays in memory beside the channels-last weights."""


def open_folder(folder: Path, name: str) -> StableDiffusionPipeline:
    """Load a text-to-image or inpainting pipeline from a folder. Neither the network nor pickles are used.

    `name` stands for the folder in error messages.

    Raises:
        InputError: the folder is not a Stable Diffusion in diffusers' format, or its weights are not safetensors files.
    """
    check_configuration(folder, name)
    missing = [weights for weights in WEIGHTS if not (folder / weights).is_file()]
    if missing:
        raise InputError(
            f"{name}: {', '.join(missing)} is missing; pickles (.bin, .ckpt) are not loaded because they can run code, "
            "so give a copy in safetensors format (diffusers' `save_pretrained` writes one)"
        )
    try:
        counts = {part: len(tensor_names(folder / weights)) for part, weights in _WEIGHTS.items()}
        with quiet():
            pipeline = StableDiffusionPipeline.from_pretrained(
                folder, use_safetensors=True, requires_safety_checker=False, image_encoder=None, **OPTIONS
            )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise InputError(f"{name}: not a Stable Diffusion in diffusers' folder format ({brief(error)})") from error
    check_complete(pipeline, counts, name)
    return pipeline


def tensor_names(path: Path) -> list[str]:
    """Return the names of the weights in a safetensors file, without the `position_ids` of old files."""
    with safe_open(path, framework="pt") as file:
        return [name for name in file.keys() if not name.endswith("position_ids")]  # noqa: SIM118


def check_complete(pipeline: StableDiffusionPipeline, counts: dict[str, int], name: str) -> None:
    """Raise an InputError if a file lacks weights: `counts` maps each component to the number of tensors in its file.

    The libraries initialise missing weights at random. Names differ between releases of the libraries, the number does
    not.
    """
    for part, count in counts.items():
        needed = len(getattr(pipeline, part).state_dict())
        if count != needed:
            raise InputError(
                f"{name}: has {count} tensors for the {part}, but its configuration needs {needed}; download the file "
                "again, or give the matching configuration"
            )


def files_of(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder that match any of `patterns`, sorted by name."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and warnings of diffusers and transformers; `check_complete` replaces the warnings."""
    libraries = [diffusers.utils.logging, transformers.utils.logging]
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, bar_enabled) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bar_enabled:
                library.enable_progress_bar()
