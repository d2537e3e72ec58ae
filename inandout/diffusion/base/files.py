"""Files of a base in diffusers' format; this module reads no weights."""

import json
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from inandout.errors import InputError, brief

CONFIGURATION = (
    "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
    "text_encoder_2/config.json", "scheduler/scheduler_config.json", "tokenizer/*.json", "tokenizer/*.txt",
    "tokenizer_2/*.json", "tokenizer_2/*.txt",
)  # fmt: skip
"""Files with the configuration of the components, and the tokenizer."""

PART_WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "text_encoder_2": "text_encoder_2/model.safetensors",
}
PARTS = tuple(PART_WEIGHTS)
"""Components with weights; only SDXL has a second text encoder."""
WEIGHTS = tuple(PART_WEIGHTS.values())
"""Files with the weights of the components in a base on the hub."""
_VARIANTS = ("", ".fp16", ".bf16")
"""Variants of weights in order of preference; "" is fp32. Pickles are never read."""


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
    stem = Path(PART_WEIGHTS[part]).stem
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


def tensor_names(path: Path) -> list[str]:
    """Return the names of the weights in a safetensors file, without the `position_ids` of old files."""
    with safe_open(path, framework="pt") as file:
        return [name for name in file.keys() if not name.endswith("position_ids")]  # noqa: SIM118


def files_of(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder that match any of `patterns`, sorted by name."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
