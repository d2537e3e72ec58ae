"""Adapters in the format of kohya-ss/sd-scripts, which most programs for Stable Diffusion read.

Layer names have `_` for `.`. A is `lora_down`, B is `lora_up`, and each layer has its own `alpha` tensor. UNet layers
have the names of diffusers, text-encoder layers those of transformers before 5.6.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from pydantic import ValidationError
from torch import Tensor
from transformers import CLIPTextModel

from inandout.diffusion.lora.adapter import Adapter, AdapterMeta, check_adapter
from inandout.diffusion.lora.config import AdapterConfig, kind_of
from inandout.diffusion.lora.targets import find_layers, pair_shapes
from inandout.errors import InputError

PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}

DOWN, UP, ALPHA = "lora_down.weight", "lora_up.weight", "alpha"


class Pair(NamedTuple):
    """A, B and alpha of one layer."""

    down: Tensor
    up: Tensor
    alpha: float


def kohya_name(layer: str) -> str:
    """Return the kohya name, e.g. `unet.mid_block.resnets.0.conv1` -> `lora_unet_mid_block_resnets_0_conv1`."""
    part, name = layer.split(".", 1)
    return PREFIXES[part] + name.replace(".", "_")


def to_kohya(adapter: Adapter) -> dict[str, Tensor]:
    """Return the tensors of a kohya file; the values are unchanged."""
    tensors = {}
    for name, a in adapter.tensors.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            kohya_layer, (_, alpha) = kohya_name(layer), adapter.meta.config.dim_and_alpha(a.shape)
            tensors[f"{kohya_layer}.{DOWN}"] = a
            tensors[f"{kohya_layer}.{UP}"] = adapter.tensors[f"{layer}.lora_B.weight"]
            tensors[f"{kohya_layer}.{ALPHA}"] = torch.tensor(float(alpha))
    return tensors


def from_kohya(
    tensors: Mapping[str, Tensor],
    meta: AdapterMeta,
    base_fingerprint: str,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
) -> Adapter:
    """Convert kohya's tensors to an adapter; ranks and alphas come from the tensors, the rest from `meta`.

    If the text encoder was not trained, its layers get zeros.

    Raises:
        InputError: a tensor is unknown, missing or does not fit, layers of one kind differ in rank or alpha, or `meta`
            names another base.
    """
    shapes = {name: tuple(layer.weight.shape) for name, layer in find_layers(unet, text_encoder, c3=True).items()}
    pairs = _pairs(tensors, shapes)
    renamed = {}
    for layer, pair in pairs.items():
        renamed[f"{layer}.lora_A.weight"] = pair.down.float().contiguous()
        renamed[f"{layer}.lora_B.weight"] = pair.up.float().contiguous()
    config = _config(pairs)
    if not any(layer.startswith("text_encoder.") for layer in pairs):
        renamed |= _zero_text_encoder(shapes, config)
    adapter = Adapter(renamed, meta.model_copy(update={"config": config}))
    check_adapter(base_fingerprint, unet, text_encoder, adapter)
    return adapter


def _zero_text_encoder(shapes: Mapping[str, Sequence[int]], config: AdapterConfig) -> dict[str, Tensor]:
    """Return zeros for all layers of the text encoder."""
    zeros = {}
    for layer in (layer for layer in shapes if layer.startswith("text_encoder.")):
        a, b = pair_shapes(shapes[layer], config.dim_and_alpha(shapes[layer])[0])
        zeros[f"{layer}.lora_A.weight"], zeros[f"{layer}.lora_B.weight"] = torch.zeros(a), torch.zeros(b)
    return zeros


def _pairs(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Pair]:
    by_layer: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kohya_layer, _, key = name.partition(".")
        by_layer.setdefault(kohya_layer, {})[key] = tensor
    unknown = sorted(by_layer.keys() - {kohya_name(layer) for layer in shapes})
    if unknown:
        raise InputError(
            f"{unknown[0]}: this model has no such layer, or an adapter cannot change it ({len(unknown)} of "
            f"{len(by_layer)} layers); give a LoRA or LoRA-C3Lier of the same architecture"
        )
    found = {layer: by_layer[name] for layer in shapes if (name := kohya_name(layer)) in by_layer}
    return {layer: _pair(kohya_name(layer), shapes[layer], layer_tensors) for layer, layer_tensors in found.items()}


def _pair(name: str, shape: Sequence[int], layer_tensors: Mapping[str, Tensor]) -> Pair:
    for key in sorted({DOWN, UP} - layer_tensors.keys()):
        raise InputError(f"{name}.{key} is missing, so the file is incomplete; export it again")
    for key in sorted(layer_tensors.keys() - {DOWN, UP, ALPHA}):
        raise InputError(f"{name}.{key}: not part of a LoRA or LoRA-C3Lier; other adapters cannot be imported")
    dim = layer_tensors[DOWN].shape[0] if layer_tensors[DOWN].ndim else 0
    for key, expected in zip((DOWN, UP), pair_shapes(shape, dim), strict=True):
        if tuple(layer_tensors[key].shape) != expected:
            raise InputError(
                f"{name}.{key}: shape {tuple(layer_tensors[key].shape)} does not fit this model, which needs "
                f"{expected}; give an adapter of the same architecture"
            )
    alpha = layer_tensors.get(ALPHA, torch.tensor(dim))  # old kohya files have no alpha; it equals the rank
    if alpha.numel() != 1:
        raise InputError(f"{name}.{ALPHA}: {alpha.numel()} numbers, but one is needed; export the file again")
    return Pair(layer_tensors[DOWN], layer_tensors[UP], float(alpha))


def _config(pairs: Mapping[str, Pair]) -> AdapterConfig:
    others = {layer: pair for layer, pair in pairs.items() if kind_of(pair.down.shape) != "conv3x3"}
    dim, alpha = _common_rank_and_alpha("linear layers and 1x1 convolutions", others)
    values = {"network_dim": dim, "network_alpha": alpha, "conv_dim": 0}
    if conv3x3 := {layer: pair for layer, pair in pairs.items() if layer not in others}:
        values["conv_dim"], values["conv_alpha"] = _common_rank_and_alpha("3x3 convolutions", conv3x3)
    try:
        return AdapterConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{first['loc'][0]} = {first['input']}: {first['msg']}; export the file again") from error


def _common_rank_and_alpha(kind: str, pairs: Mapping[str, Pair]) -> tuple[int, float]:
    layers = {(len(pair.down), pair.alpha): kohya_name(layer) for layer, pair in pairs.items()}
    if len(layers) != 1:
        listed = "; ".join(f"rank {dim} and alpha {alpha:g} in {name}" for (dim, alpha), name in layers.items())
        raise InputError(f"{kind} must share one rank and one alpha, but have {listed or 'none'}; train a new adapter")
    return next(iter(layers))
