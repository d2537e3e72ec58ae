"""Adapters in the format of kohya-ss/sd-scripts, which most programs around Stable Diffusion read.

A layer's name has `_` for `.`; its A is `lora_down`, its B `lora_up`, and its alpha is a tensor of its own. The layers
of the UNet are called as in diffusers, those of the text encoder as in transformers before 5.6.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from pydantic import ValidationError
from torch import Tensor
from transformers import CLIPTextModel

from inandout.diffusion.lora.adapter import Adapter, AdapterMeta, check_adapter
from inandout.diffusion.lora.layers import AdapterConfig
from inandout.diffusion.lora.targets import find_layers, kind_of, pair_shapes
from inandout.errors import InputError

PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}

DOWN, UP, ALPHA = "lora_down.weight", "lora_up.weight", "alpha"


class Pair(NamedTuple):
    """One layer of an adapter."""

    down: Tensor
    up: Tensor
    alpha: float


def kohya_name(layer: str) -> str:
    """`unet.mid_block.resnets.0.conv1` -> `lora_unet_mid_block_resnets_0_conv1`."""
    part, name = layer.split(".", 1)
    return PREFIXES[part] + name.replace(".", "_")


def to_kohya(adapter: Adapter) -> dict[str, Tensor]:
    """The tensors of a kohya file; the values stay as they are."""
    tensors = {}
    for name, a in adapter.tensors.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            theirs, (_, alpha) = kohya_name(layer), adapter.meta.config.dim_and_alpha(a.shape)
            tensors[f"{theirs}.{DOWN}"] = a
            tensors[f"{theirs}.{UP}"] = adapter.tensors[f"{layer}.lora_B.weight"]
            tensors[f"{theirs}.{ALPHA}"] = torch.tensor(float(alpha))
    return tensors


def from_kohya(
    tensors: Mapping[str, Tensor],
    meta: AdapterMeta,
    base_fingerprint: str,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
) -> Adapter:
    """An adapter of kohya's tensors; ranks and alphas are the tensors', the rest of `meta` is kept.

    Where the text encoder was not trained, it gets an adapter that does nothing.

    Raises:
        InputError: a tensor is unknown, missing or does not fit, layers of a kind differ in rank or alpha, or `meta`
            names another base.
    """
    shapes = {name: tuple(layer.weight.shape) for name, layer in find_layers(unet, text_encoder, c3=True).items()}
    pairs = _pairs(tensors, shapes)
    ours = {}
    for layer, pair in pairs.items():
        ours[f"{layer}.lora_A.weight"] = pair.down.float().contiguous()
        ours[f"{layer}.lora_B.weight"] = pair.up.float().contiguous()
    config = _config(pairs)
    if not any(layer.startswith("text_encoder.") for layer in pairs):
        ours |= _idle(shapes, config)
    adapter = Adapter(ours, meta.model_copy(update={"config": config}))
    check_adapter(base_fingerprint, unet, text_encoder, adapter)
    return adapter


def _idle(shapes: Mapping[str, Sequence[int]], config: AdapterConfig) -> dict[str, Tensor]:
    """Zeros for all layers of the text encoder."""
    idle = {}
    for layer in (layer for layer in shapes if layer.startswith("text_encoder.")):
        a, b = pair_shapes(shapes[layer], config.dim_and_alpha(shapes[layer])[0])
        idle[f"{layer}.lora_A.weight"], idle[f"{layer}.lora_B.weight"] = torch.zeros(a), torch.zeros(b)
    return idle


def _pairs(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Pair]:
    by_layer: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        theirs, _, key = name.partition(".")
        by_layer.setdefault(theirs, {})[key] = tensor
    unknown = sorted(by_layer.keys() - {kohya_name(layer) for layer in shapes})
    if unknown:
        raise InputError(
            f"{unknown[0]}: no such layer in this model, or none that an adapter may change ({len(unknown)} of "
            f"{len(by_layer)} layers): use a LoRA or LoRA-C3Lier of the same architecture"
        )
    found = {layer: by_layer[name] for layer in shapes if (name := kohya_name(layer)) in by_layer}
    return {layer: _pair(kohya_name(layer), shapes[layer], own) for layer, own in found.items()}


def _pair(name: str, shape: Sequence[int], own: Mapping[str, Tensor]) -> Pair:
    for key in sorted({DOWN, UP} - own.keys()):
        raise InputError(f"{name}.{key} is missing: the file is incomplete; export it again")
    for key in sorted(own.keys() - {DOWN, UP, ALPHA}):
        raise InputError(f"{name}.{key}: not of a LoRA or LoRA-C3Lier; other kinds of adapters cannot be imported")
    dim = own[DOWN].shape[0] if own[DOWN].ndim else 0
    for key, fitting in zip((DOWN, UP), pair_shapes(shape, dim), strict=True):
        if tuple(own[key].shape) != fitting:
            raise InputError(
                f"{name}.{key}: shape {tuple(own[key].shape)} does not fit this model, which needs {fitting}: "
                "use an adapter of the same architecture"
            )
    alpha = own.get(ALPHA, torch.tensor(dim))  # kohya's oldest files have none and mean the rank
    if alpha.numel() != 1:
        raise InputError(f"{name}.{ALPHA}: {alpha.numel()} numbers where one is needed; export the file again")
    return Pair(own[DOWN], own[UP], float(alpha))


def _config(pairs: Mapping[str, Pair]) -> AdapterConfig:
    flat = {layer: pair for layer, pair in pairs.items() if kind_of(pair.down.shape) != "conv3x3"}
    dim, alpha = _shared("linear layers and 1x1 convolutions", flat)
    values = {"network_dim": dim, "network_alpha": alpha, "conv_dim": 0}
    if spatial := {layer: pair for layer, pair in pairs.items() if layer not in flat}:
        values["conv_dim"], values["conv_alpha"] = _shared("3x3 convolutions", spatial)
    try:
        return AdapterConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{first['loc'][0]} = {first['input']}: {first['msg']}; export the file again") from error


def _shared(kind: str, pairs: Mapping[str, Pair]) -> tuple[int, float]:
    strengths = {(len(pair.down), pair.alpha): kohya_name(layer) for layer, pair in pairs.items()}
    if len(strengths) != 1:
        listed = "; ".join(f"rank {dim} and alpha {alpha:g} in {name}" for (dim, alpha), name in strengths.items())
        raise InputError(f"{kind} must share one rank and one alpha; found are: {listed or 'none'}; train it so")
    return next(iter(strengths))
