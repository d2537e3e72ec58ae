"""Save and load an adapter as one safetensors file, which diffusers' `load_lora_weights` can also read."""

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
from inandout.files import require_regular

META = "inandout"
"""Key of the `AdapterMeta` in the file's header."""
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def save_adapter(path: Path, adapter: Adapter) -> None:
    """Write an adapter; an existing file is replaced only when the new one is complete.

    The header holds ranks and alphas in diffusers' format, because diffusers otherwise assumes that alpha equals the
    rank.

    Raises:
        InputError: the file cannot be written.
    """
    layers = {
        name.removesuffix(".lora_A.weight"): tensor.shape
        for name, tensor in adapter.tensors.items()
        if name.endswith(".lora_A.weight")
    }
    configs: dict[str, Any] = dict(peft_configs(adapter.meta.config, layers))
    metadata = {f"{part}.{key}": value for part, config in configs.items() for key, value in config.to_dict().items()}
    header = {
        LORA_ADAPTER_METADATA_KEY: json.dumps(metadata, default=sorted, sort_keys=True),
        META: adapter.meta.model_dump_json(),
    }
    write_tensors(path, adapter.tensors, header)


def load_adapter(path: Path) -> Adapter:
    """Read a file that `save_adapter` wrote.

    Raises:
        InputError: the file cannot be read, is a pickle, was not written by `save_adapter`, or holds non-finite values.
    """
    tensors, header = read_tensors(path)
    if any(name.startswith("lora_") for name in tensors):
        raise InputError(
            f"{path}: is an adapter in kohya's format; import it first with the entry point convert and to=inandout"
        )
    if META not in header:
        raise InputError(
            f"{path}: not an adapter of this program, because the header lacks '{META}'; give an adapter that "
            "finetune wrote, or import a file of kohya, diffusers or peft with the entry point convert and to=inandout"
        )
    return Adapter(tensors, read_meta(path, header))


def read_meta(path: Path, header: Mapping[str, str]) -> AdapterMeta:
    """Return the `AdapterMeta` in a file's header.

    Raises:
        InputError: a field is missing, unknown or invalid.
    """
    try:
        return AdapterMeta.model_validate_json(header[META])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or META
        raise InputError(f"{path}: {where} in the file's header: {first['msg']}; give an unmodified file") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and header of a safetensors file.

    Raises:
        InputError: the file is a pickle, cannot be read, or holds non-finite values.
    """
    refuse_pickle(path)
    require_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); give an existing .safetensors file") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a complete safetensors file ({error}); download it again") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise InputError(f"{path}: {name} has type {tensor.dtype}; save it as 16- or 32-bit floating point")
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name} holds NaN or infinite values; train the adapter again with a lower lr")
    return tensors, header
