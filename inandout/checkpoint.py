"""Checkpoints: one safetensors file, replaced atomically, never a pickle."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from inandout.errors import InputError
from inandout.files import replacing, require_regular

PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""File extensions that are never opened."""
_OPTIMISER = "adam."


class NonFiniteLossError(InputError):
    """Training was stopped because a loss was NaN or infinite; the last checkpoint precedes it."""


class Checkpoint(NamedTuple):
    """Everything needed to resume a run exactly where it stopped."""

    weights: dict[str, Tensor]
    progress: dict[str, Any]
    """JSON-compatible: finished epochs, sampler state, history."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; if the process is killed or the disk is full, the previous file stays intact."""
    write_tensors(path, checkpoint.weights, {"progress": json.dumps(checkpoint.progress)})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Write a safetensors file under a temporary name, flush it to disk and rename it.

    Raises:
        InputError: the file cannot be written; an existing file stays unchanged.
    """
    try:
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with replacing(path) as temporary:
            save_file(on_cpu, temporary, metadata=header)
            with temporary.open("r+b") as file:  # Windows flushes writable files only
                _sort_header(file)
                file.flush()
                os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be written ({error}), an existing file is unchanged; use an existing folder, or free disk "
            "space and repeat the command"
        ) from error


def _sort_header(file: BinaryIO) -> None:
    """Sort the header of a safetensors file, so that equal tensors give equal files; safetensors writes any order."""
    length = int.from_bytes(file.read(8), "little")
    names = json.loads(file.read(length))
    names["__metadata__"] = dict(sorted(names.get("__metadata__", {}).items()))
    text = json.dumps(dict(sorted(names.items())), separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) <= length:
        file.seek(8)
        file.write(text.ljust(length))


def refuse_pickle(path: Path) -> None:
    """Raise an InputError if the file extension is one of `PICKLES`, which can execute code when loaded."""
    if path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path}: a {path.suffix} file is a pickle, which can run code when loaded; convert it to .safetensors "
            "(for example with diffusers' `save_pretrained`), or download the .safetensors version"
        )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint written by `save_checkpoint`.

    Raises:
        InputError: the file is not a checkpoint of this package.
    """
    require_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads((file.metadata() or {})["progress"])
            # Copies, because Windows cannot replace a file that tensors map.
            weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return Checkpoint(weights, progress)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a checkpoint of this program ({error}); delete it to start over") from error


def pack_optimiser(optimiser: Optimizer) -> dict[str, Tensor]:
    """Return the optimiser state as tensors named `adam.<parameter number>.<name>`; empty for plain SGD."""
    state = optimiser.state_dict()["state"]
    return {f"{_OPTIMISER}{i}.{name}": value for i, entry in state.items() for name, value in _flatten(entry).items()}


def _flatten(entry: dict[str, Any]) -> dict[str, Tensor]:
    """Flatten the state of one parameter; the 8-bit optimiser's state also has plain numbers and a dictionary."""
    flat: dict[str, Tensor] = {}
    for name, value in entry.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": tensor for inner, tensor in _flatten(value).items()}
        else:
            flat[name] = torch.as_tensor(value)
    return flat


def unpack_optimiser(optimiser: Optimizer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Load the state packed by `pack_optimiser` into the optimiser and return the other tensors."""
    state: dict[int, dict[str, Any]] = {}
    others = {}
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMISER):
            number, *outer, last = name.removeprefix(_OPTIMISER).split(".")
            entry = state.setdefault(int(number), {})
            for key in outer:
                entry = entry.setdefault(key, {})
            entry[last] = tensor if tensor.is_floating_point() or tensor.ndim else int(tensor)
        else:
            others[name] = tensor
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    for weights, moments in optimiser.state.items():
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.shape == weights.shape and moment.stride() != weights.stride():
                # Fused optimisers iterate in memory order; safetensors files are always contiguous.
                moments[name] = torch.empty_like(weights, dtype=moment.dtype).copy_(moment)
    return others
