"""A Stable Diffusion as a folder in diffusers' format."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError, safe_open

from inandout.errors import InputError, brief

CONFIGURATION = (
    "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
    "scheduler/scheduler_config.json", "tokenizer/*.json", "tokenizer/*.txt",
)  # fmt: skip
"""Files that say what the parts look like, and the tokenizer."""

_WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
WEIGHTS = tuple(_WEIGHTS.values())
"""Files with the weights of the parts; copies in half precision or as pickles, which lie beside them, are not read."""

OPTIONS = {
    "dtype": torch.float32, "safety_checker": None, "feature_extractor": None, "local_files_only": True,
    "disable_mmap": True,
}  # fmt: skip
"""How pipelines are loaded. The safety checker is left out: it takes some textures for what they are not, and blackens
the image; and the base makes surfaces. A mapped file stays in memory whole beside the weights that become
channels-last, so files are read instead."""

_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline")
_CLASSES = {
    "unet": ["UNet2DConditionModel"],
    "vae": ["AutoencoderKL", "AutoencoderTiny"],
    "text_encoder": ["CLIPTextModel"],
    "tokenizer": ["CLIPTokenizer", "CLIPTokenizerFast"],
}


def open_folder(folder: Path, name: str) -> StableDiffusionPipeline:
    """Load a folder, for whole images or for inpainting; never the network, never a pickle.

    `name` is what messages call it.

    Raises:
        InputError: it is no such folder, its weights are not in safetensors' format, or it is another kind of model.
    """
    check_configuration(folder, name)
    missing = [weights for weights in WEIGHTS if not (folder / weights).is_file()]
    if missing:
        raise InputError(
            f"{name}: {', '.join(missing)} is missing; weights as pickles (.bin, .ckpt) are not loaded, as they can "
            "run code, so use a copy in safetensors' format (`save_pretrained` of diffusers writes one)"
        )
    try:
        counts = {part: len(tensor_names(folder / weights)) for part, weights in _WEIGHTS.items()}
        with quiet():
            pipeline = StableDiffusionPipeline.from_pretrained(
                folder, use_safetensors=True, requires_safety_checker=False, image_encoder=None, **OPTIONS
            )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise InputError(f"{name}: not a Stable Diffusion in diffusers' folder format ({brief(error)})") from error
    check_whole(pipeline, counts, name)
    return pipeline


def check_configuration(folder: Path, name: str) -> dict[str, list[str]]:
    """Part to its library and class, of a folder that says it is a Stable Diffusion 1 or 2.

    Raises:
        InputError: it has no `model_index.json`, or that names other parts.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        kind = index["_class_name"]
        parts = {part: list(index[part]) for part in _CLASSES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{name}: not a Stable Diffusion in diffusers' folder format (model_index.json: {brief(error)})"
        ) from error
    libraries = {"diffusers", "transformers"}
    wrong = [
        f"{part} {'.'.join(found)}"
        for part, found in parts.items()
        if found[0] not in libraries or found[-1] not in _CLASSES[part]
    ]
    if kind not in _PIPELINES or wrong:
        raise InputError(
            f"{name}: is a {kind}{' with ' if wrong else ''}{', '.join(wrong)}; a {' or '.join(_PIPELINES)} "
            "(version 1) is needed"
        )
    return parts


def tensor_names(path: Path) -> list[str]:
    """Names of the weights in a safetensors file; the numbers of positions, which old files hold, are none."""
    with safe_open(path, framework="pt") as file:
        return [name for name in file.keys() if not name.endswith("position_ids")]  # noqa: SIM118


def check_whole(pipeline: StableDiffusionPipeline, counts: dict[str, int], name: str) -> None:
    """Refuse where `counts`, part to the number of weights in its file, is not what the part needs.

    The libraries leave weights that a file lacks at random. Names may differ from release to release, numbers do not.
    """
    for part, count in counts.items():
        needed = len(getattr(pipeline, part).state_dict())
        if count != needed:
            raise InputError(
                f"{name}: has {count} tensors for the {part}, and its configuration asks for {needed}; get the file "
                "again, or the configuration that belongs to it"
            )


def files_of(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files of a folder that match one of `patterns`, in the order of their names."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and warnings of two libraries that load; what they warn of is checked here."""
    libraries = [diffusers.utils.logging, transformers.utils.logging]
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, shown) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if shown:
                library.enable_progress_bar()
