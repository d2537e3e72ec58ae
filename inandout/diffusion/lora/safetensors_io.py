"""An adapter as one safetensors file, which diffusers' `load_lora_weights` reads, too."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inandout.checkpoint import refuse_pickle, write_tensors
from inandout.diffusion.lora.adapter import Adapter, AdapterMeta
from inandout.diffusion.lora.layers import peft_configs
from inandout.errors import InputError

META = "inandout"
"""Where the file's header holds the `AdapterMeta`."""


def save_adapter(path: Path, adapter: Adapter) -> None:
    """Write an adapter; a file that was there before is replaced when all is written.

    Ranks and alphas are in the header as diffusers wants them, since it would otherwise take alpha for the rank.

    Raises:
        InputError: it cannot be written there.
    """
    layers = {
        name.removesuffix(".lora_A.weight"): tensor.shape
        for name, tensor in adapter.tensors.items()
        if name.endswith(".lora_A.weight")
    }
    configs: dict[str, Any] = dict(peft_configs(adapter.meta.config, layers))
    ranks = {f"{part}.{key}": value for part, config in configs.items() for key, value in config.to_dict().items()}
    header = {
        LORA_ADAPTER_METADATA_KEY: json.dumps(ranks, default=sorted, sort_keys=True),
        META: adapter.meta.model_dump_json(),
    }
    write_tensors(path, adapter.tensors, header)


def load_adapter(path: Path) -> Adapter:
    """Read what `save_adapter` wrote.

    Raises:
        InputError: the file cannot be read, is a pickle, is not ours, or holds values that are not finite.
    """
    tensors, header = read_tensors(path)
    if any(name.startswith("lora_") for name in tensors):
        raise InputError(
            f"{path}: an adapter in kohya's format; import it first, with the entry point convert and to=inandout"
        )
    if META not in header:
        raise InputError(
            f"{path}: not an adapter of this program, which records the base and the prompts in the file's header; "
            "train one, or import a file in kohya's format"
        )
    return Adapter(tensors, read_meta(path, header))


def read_meta(path: Path, header: Mapping[str, str]) -> AdapterMeta:
    """The `AdapterMeta` in a file's header; an InputError names what is wrong with it."""
    try:
        return AdapterMeta.model_validate_json(header[META])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or META
        raise InputError(
            f"{path}: {where} in the file's header: {first['msg']}; use a file as it was written"
        ) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, which are finite, and header of a safetensors file.

    Raises:
        InputError: the file is a pickle, cannot be read, or holds values that are not finite.
    """
    refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); name a .safetensors file that exists") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file, or only a part of one ({error}); fetch it again") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name} holds values that are not finite; the training that made it went wrong")
    return tensors, header
