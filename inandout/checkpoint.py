"""Training state on disk: one safetensors file, replaced atomically, never a pickle."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from inandout.errors import InputError

_OPTIMISER = "adam."


class NonFiniteLossError(InputError):
    """Training produced NaN or infinity and was stopped; the last checkpoint is from before."""


class Checkpoint(NamedTuple):
    """Everything a run needs to go on as if it had never stopped."""

    weights: dict[str, Tensor]
    progress: dict[str, Any]
    """JSON-compatible: epochs done, sampler state, history."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write under a temporary name, flush to disk, rename: a kill or a full disk leaves the previous one intact."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
        save_file(weights, temporary, metadata={"progress": json.dumps(checkpoint.progress)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"{path}: the checkpoint cannot be written ({error}); the previous one is intact: free some space and "
            "start the same command again"
        ) from error


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
    return others
