"""Options of the base model, and its kind."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from inandout.errors import InputError, brief
from inandout.files import require_regular

_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionInpaintPipeline")


_CLASSES = {
    "unet": ["UNet2DConditionModel"],
    "vae": ["AutoencoderKL", "AutoencoderTiny"],
    "text_encoder": ["CLIPTextModel"],
    "tokenizer": ["CLIPTokenizer", "CLIPTokenizerFast"],
}


Kind = Literal["embedded", "sd"]
"""The small base of the package ("embedded"), or any other Stable Diffusion ("sd")."""


ALLOWED = "'embedded', a folder in diffusers' format, owner/name@<40 hex digits> on the hub, or a .safetensors file"


class BaseConfig(BaseModel):
    """The Stable Diffusion that is fine-tuned and sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = Field("embedded", min_length=1, description=f"base model: {ALLOWED}")
    base_config: str = Field(
        "",
        description="for a .safetensors file: folder, or owner/name@<40 hex digits> on the hub, with the configuration "
        "and tokenizer in diffusers' format",
    )


def kind_of_base(name: str) -> Kind:
    """Return the kind of the base with this name. A folder that `pretrain` wrote counts as "embedded".

    Raises:
        InputError: the folder holds another kind of model.
    """
    index = Path(name) / "model_index.json"
    pretrained = index.is_file() and check_configuration(Path(name), name)["vae"][-1] == "AutoencoderTiny"
    return "embedded" if name == "embedded" or pretrained else "sd"


def check_configuration(folder: Path, name: str) -> dict[str, list[str]]:
    """Return library and class of each component of a Stable Diffusion 1 or 2, as `model_index.json` lists them.

    Raises:
        InputError: `model_index.json` is missing or lists other components.
    """
    require_regular(folder / "model_index.json")
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        kind = index["_class_name"]
        parts = {part: _library_and_class(part, index[part]) for part in (*_CLASSES, "scheduler")}
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
    if kind not in _PIPELINES or wrong:
        raise InputError(
            f"{name}: is a {kind}{' with ' if wrong else ''}{', '.join(wrong)}; give a {' or '.join(_PIPELINES)} "
            "(version 1)"
        )
    return parts


def _library_and_class(part: str, value: object) -> list[str]:
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(name, str) for name in value)):
        raise TypeError(f"{part} is not a library and a class")
    return value


def _is_allowed(part: str, class_name: str) -> bool:
    return class_name in (_SCHEDULERS if part == "scheduler" else _CLASSES[part])


_SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDIM", "DDPM", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSDE", "DPMSolverSinglestep",
        "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete", "LCM",
        "LMSDiscrete", "PNDM", "TCD", "UniPCMultistep",
    )
)  # fmt: skip
"""Schedulers of Stable Diffusion in diffusers; drawing replaces them, so their settings matter alone."""
