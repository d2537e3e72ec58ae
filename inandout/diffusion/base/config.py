"""Options of the base model, and its kind."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from inandout.errors import InputError, brief
from inandout.files import require_regular

_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline")
_XL_PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionXLInpaintPipeline")
_CLASSES = {
    "unet": ["UNet2DConditionModel"],
    "vae": ["AutoencoderKL", "AutoencoderTiny"],
    "text_encoder": ["CLIPTextModel"],
    "tokenizer": ["CLIPTokenizer", "CLIPTokenizerFast"],
}
_XL_CLASSES = _CLASSES | {
    "text_encoder_2": ["CLIPTextModelWithProjection"],
    "tokenizer_2": ["CLIPTokenizer", "CLIPTokenizerFast"],
}


Kind = Literal["embedded", "sd", "sd2", "sdxl"]
"""The small base of the package ("embedded"), or a Stable Diffusion 1 ("sd"), 2 ("sd2") or XL ("sdxl")."""

TRAINED_SIZE: dict[Kind, int] = {"embedded": 64, "sd": 512, "sd2": 512, "sdxl": 1024}
"""Side in px of the square images that a base was trained on. Stable Diffusion 2 for v-prediction: 768."""


ALLOWED = "'embedded', a folder in diffusers' format, owner/name@<40 hex digits> on the hub, or a .safetensors file"


class BaseConfig(BaseModel):
    """The Stable Diffusion that is fine-tuned and sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field("embedded", min_length=1, description=f"base model: {ALLOWED}")
    base_config: str = Field(
        "",
        description="for a .safetensors file: folder, or owner/name@<40 hex digits> on the hub, with the configuration "
        "and tokenizers in diffusers' format",
    )

    def kind(self) -> Kind:
        """Return the kind of the base from its configuration, without loading it and without a network.

        A base on the hub whose configuration is not in the cache counts as Stable Diffusion 1; `open_base` checks it.

        Raises:
            InputError: a folder holds another kind of model.
        """
        name = self.base_config or self.base
        if name == "embedded":
            return "embedded"
        folder = Path(name) if Path(name).is_dir() else _hub_folder(name, download=False)
        if folder is None or not (folder / "model_index.json").is_file():
            return "sd"
        return kind_of_folder(folder, name)

    def fetch_configuration(self) -> None:
        """Download the configuration of a base on the hub, for `kind`; do nothing if that is not possible."""
        name = self.base_config or self.base
        if name != "embedded" and not Path(name).is_dir():
            _hub_folder(name, download=True)


def _hub_folder(name: str, download: bool) -> Path | None:
    """Return the folder with the configuration of a base on the hub; None if it is not there."""
    from inandout.diffusion.base.hub import fetch, is_hub_id  # only a base on the hub needs it

    try:
        return fetch(name, ("model_index.json", "unet/config.json"), download) if is_hub_id(name) else None
    except InputError:  # `open_base` reports it
        return None


def choose_kind(vae: str, second_encoder: bool, linear_projection: bool) -> Kind:
    """Return the kind of a base from the class of its VAE, its text encoders, and an option of its UNet.

    The UNet of Stable Diffusion 2 projects with linear layers, that of version 1 with 1x1 convolutions.
    """
    if vae == "AutoencoderTiny":
        return "embedded"
    return "sdxl" if second_encoder else "sd2" if linear_projection else "sd"


def kind_of_folder(folder: Path, name: str) -> Kind:
    """Return the kind of a base from a folder with its configuration; `name` stands for the folder in messages.

    Raises:
        InputError: the folder holds another kind of model.
    """
    classes = check_configuration(folder, name)
    require_regular(folder / "unet" / "config.json")
    try:
        unet = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # `open_base` reports it
        unet = {}
    linear = isinstance(unet, dict) and unet.get("use_linear_projection") is True
    return choose_kind(classes["vae"][-1], "text_encoder_2" in classes, linear)


def check_configuration(folder: Path, name: str) -> dict[str, list[str]]:
    """Return library and class of each component of a Stable Diffusion, as `model_index.json` lists them.

    Raises:
        InputError: `model_index.json` is missing or lists other components.
    """
    require_regular(folder / "model_index.json")
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        kind = index["_class_name"]
        classes = _XL_CLASSES if kind in _XL_PIPELINES else _CLASSES
        parts = {part: _library_and_class(part, index[part]) for part in (*classes, "scheduler")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{name}: not a Stable Diffusion in diffusers' folder format (model_index.json: {brief(error)})"
        ) from error
    libraries = {"diffusers", "transformers"}
    wrong = [
        f"{part} {'.'.join(found)}"
        for part, found in parts.items()
        if found[0] not in libraries or not _is_allowed(part, found[-1])
    ]
    allowed = (*_PIPELINES, *_XL_PIPELINES)
    if kind not in allowed or wrong:
        raise InputError(
            f"{name}: is a {kind}{' with ' if wrong else ''}{', '.join(wrong)}; give a {', '.join(allowed[:-1])} or "
            f"{allowed[-1]}"
        )
    return parts


def _library_and_class(part: str, value: object) -> list[str]:
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(name, str) for name in value)):
        raise TypeError(f"{part} is not a library and a class")
    return value


def _is_allowed(part: str, class_name: str) -> bool:
    return class_name in (_SCHEDULERS if part == "scheduler" else _XL_CLASSES[part])


_SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDIM", "DDPM", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSDE", "DPMSolverSinglestep",
        "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete", "LCM",
        "LMSDiscrete", "PNDM", "TCD", "UniPCMultistep",
    )
)  # fmt: skip
"""Schedulers of Stable Diffusion in diffusers. Drawing has its own solver and takes the noise schedule from them."""
