"""Training state on disk: one safetensors file, replaced atomically, never a pickle."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from inandout.errors import InputError

PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""Endings of files that are never opened."""
_OPTIMISER = "adam."


class NonFiniteLossError(InputError):
    """Training produced NaN or infinity and was stopped; the last checkpoint is from before."""


class Checkpoint(NamedTuple):
    """Everything a run needs to go on as if it had never stopped."""

    weights: dict[str, Tensor]
    progress: dict[str, Any]
    """JSON-compatible: epochs done, sampler state, history."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write it; a kill or a full disk leaves the previous one intact."""
    write_tensors(path, checkpoint.weights, {"progress": json.dumps(checkpoint.progress)})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Write a safetensors file under a temporary name, flush it to disk, rename it.

    Raises:
        InputError: it cannot be written; a file that was there before stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, temporary, metadata=header)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be written ({error}), and what was there before is intact; name a file in a folder that "
            "exists, or free some space and start the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone after success, and was never there without a folder
            temporary.unlink()


def refuse_pickle(path: Path) -> None:
    """Raise an InputError for the name of a file that could run code when it is read."""
    if path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path}: a {path.suffix} file is a pickle, which can run code when it is read; convert it to .safetensors "
            "(diffusers' `save_pretrained` does), or take the .safetensors file that most authors offer, too"
        )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        InputError: the file is not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads((file.metadata() or {})["progress"])
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, progress)  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a checkpoint of this program ({error}); delete it to start anew") from error


def pack_optimiser(optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `adam.<parameter number>.<name>`; plain SGD has none."""
    state = optimiser.state_dict()["state"]
    return {f"{_OPTIMISER}{i}.{name}": value for i, entry in state.items() for name, value in _flat(entry).items()}


def _flat(entry: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors of the state of one parameter; the 8-bit optimiser has plain numbers and a dictionary among them."""
    flat: dict[str, Tensor] = {}
    for name, value in entry.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": tensor for inner, tensor in _flat(value).items()}
        else:
            flat[name] = torch.as_tensor(value)
    return flat


def unpack_optimiser(optimiser: Optimizer, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put back what `pack_optimiser` gave; returns the other tensors."""
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
                # A fused optimiser goes through both as they lie in memory, where files are always row by row.
                moments[name] = torch.empty_like(weights, dtype=moment.dtype).copy_(moment)
    return others
