"""Open a Stable Diffusion in diffusers' folder format."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from inandout.diffusion.base.config import check_configuration
from inandout.diffusion.base.files import PART_WEIGHTS, find_weights, tensor_names
from inandout.diffusion.pipeline import TEXT_ENCODERS, Pipeline
from inandout.errors import InputError, brief

OPTIONS = {"dtype": torch.float32, "feature_extractor": None, "local_files_only": True, "disable_mmap": True}
"""How pipelines are loaded. Files are read, not mapped: a mapped file would stay in memory beside its weights."""
SD_OPTIONS = OPTIONS | {"safety_checker": None, "requires_safety_checker": False}
"""The same for Stable Diffusion 1 and 2. Their safety checker is left out because it blackens images of some textures
that it takes for unsafe content."""
XL_OPTIONS = OPTIONS | {"add_watermarker": False}
"""The same for SDXL."""


def open_folder(folder: Path, name: str) -> Pipeline:
    """Load a text-to-image or inpainting pipeline from a folder. Neither the network nor pickles are used.

    `name` stands for the folder in error messages.

    Raises:
        InputError: the folder is not a Stable Diffusion in diffusers' format, or its weights are not safetensors files.
    """
    classes = check_configuration(folder, name)
    found = {part: find_weights(folder, part) for part in PART_WEIGHTS if part in classes}
    xl = "text_encoder_2" in classes
    missing = [PART_WEIGHTS[part] for part, weights in found.items() if not weights.files]
    if missing:
        raise InputError(
            f"{name}: {', '.join(missing)} is missing; pickles (.bin, .ckpt) are not loaded because they can run code, "
            "so give a copy in safetensors format (diffusers' `save_pretrained` writes one)"
        )
    try:
        counts = {part: sum(len(tensor_names(file)) for file in weights.files) for part, weights in found.items()}
        with quiet():
            parts = {
                part: _load_part(folder, part, classes[part][-1], weights.variant)
                for part, weights in found.items()
                if weights.variant
            }
            pipeline_class: Any = StableDiffusionXLPipeline if xl else StableDiffusionPipeline
            pipeline: Pipeline = pipeline_class.from_pretrained(
                folder, use_safetensors=True, image_encoder=None, **(XL_OPTIONS if xl else SD_OPTIONS), **parts
            )
    except InputError:
        raise
    except Exception as error:  # the libraries raise errors of any type on damaged configurations
        raise InputError(f"{name}: not a Stable Diffusion in diffusers' folder format ({brief(error)})") from error
    check_complete(pipeline, counts, name)
    return pipeline


def _load_part(folder: Path, part: str, class_name: str, variant: str) -> Any:
    """Load a component of which there are only 16-bit weights, as fp32."""
    library: Any = transformers if part in TEXT_ENCODERS else diffusers
    options = {"dtype": torch.float32} if part in TEXT_ENCODERS else {"torch_dtype": torch.float32}
    return getattr(library, class_name).from_pretrained(
        folder, subfolder=part, variant=variant, use_safetensors=True, local_files_only=True, **options
    )


def check_complete(pipeline: Pipeline, counts: dict[str, int], name: str) -> None:
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
