"""Open a Stable Diffusion in diffusers' folder format."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import safe_open

from inandout.diffusion.base.config import check_configuration
from inandout.diffusion.pipeline import TEXT_ENCODERS, Pipeline
from inandout.errors import InputError, brief

CONFIGURATION = (
    "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
    "text_encoder_2/config.json", "scheduler/scheduler_config.json", "tokenizer/*.json", "tokenizer/*.txt",
    "tokenizer_2/*.json", "tokenizer_2/*.txt",
)  # fmt: skip
"""Files with the configuration of the components, and the tokenizer."""

_WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "text_encoder_2": "text_encoder_2/model.safetensors",
}
PARTS = tuple(_WEIGHTS)
"""Components with weights; only SDXL has a second text encoder."""
WEIGHTS = tuple(_WEIGHTS.values())
"""Files with the weights of the components in a base on the hub."""
_VARIANTS = ("", ".fp16", ".bf16")
"""Variants of weights in order of preference; "" is fp32. Pickles are never read."""

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
    found = {part: find_weights(folder, part) for part in _WEIGHTS if part in classes}
    xl = "text_encoder_2" in classes
    missing = [_WEIGHTS[part] for part, weights in found.items() if not weights.files]
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


class Weights(NamedTuple):
    """Files with the weights of a component."""

    files: list[Path]
    """One file, or the shards and their index; empty if there are none."""
    variant: str
    """`fp16`, `bf16`, or "" for fp32."""


def find_weights(folder: Path, part: str) -> Weights:
    """Return the weights of a component: of the best variant, in one file or in shards.

    Raises:
        InputError: the index of the shards cannot be read, or shards are missing.
    """
    stem = Path(_WEIGHTS[part]).stem
    for variant in _VARIANTS:
        whole = folder / part / f"{stem}{variant}.safetensors"
        if whole.is_file():
            return Weights([whole], variant[1:])
        for index in (f"{stem}.safetensors.index{variant}.json", f"{stem}{variant}.safetensors.index.json"):
            if (folder / part / index).is_file():
                return Weights(_shards(folder / part / index), variant[1:])
    return Weights([], "")


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [index.parent / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{index}: cannot be read as an index of shards ({brief(error)}); download it again"
        ) from error
    wrong = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if wrong or not files:
        raise InputError(f"{index}: lists {wrong[:1] or 'no file'}; shards are .safetensors files in the same folder")
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{index}: {', '.join(missing)} is missing; download it again")
    return files


def _load_part(folder: Path, part: str, class_name: str, variant: str) -> Any:
    """Load a component of which there are only 16-bit weights, as fp32."""
    library: Any = transformers if part in TEXT_ENCODERS else diffusers
    options = {"dtype": torch.float32} if part in TEXT_ENCODERS else {"torch_dtype": torch.float32}
    return getattr(library, class_name).from_pretrained(
        folder, subfolder=part, variant=variant, use_safetensors=True, local_files_only=True, **options
    )


def tensor_names(path: Path) -> list[str]:
    """Return the names of the weights in a safetensors file, without the `position_ids` of old files."""
    with safe_open(path, framework="pt") as file:
        return [name for name in file.keys() if not name.endswith("position_ids")]  # noqa: SIM118


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
