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

DOWN, UP, ALPHA, MID = "lora_down.weight", "lora_up.weight", "alpha", "lora_mid.weight"
MAX_ALPHA = 1024.0
"""Limit of `AdapterConfig`."""


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

    Layers that the file leaves out get zeros. If ranks differ, smaller ones are padded with zeros; if alphas differ, B
    is multiplied by alpha / rank. All of this is exact.

    Raises:
        InputError: a tensor is unknown, incomplete or does not fit, or `meta` names another base.
    """
    layers = find_layers(unet, text_encoder, c3=True)
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    pairs = _pairs(tensors, shapes)
    if not pairs:
        raise InputError("the file has no layer of a LoRA; give a LoRA or LoRA-C3Lier")
    needs_c3 = bool(pairs.keys() - find_layers(unet, text_encoder, c3=False).keys())
    config = _config(pairs, needs_c3)
    renamed = {}
    for layer, shape in shapes.items():
        dim, alpha = config.dim_and_alpha(shape)
        if layer in pairs or needs_c3 or layer in find_layers(unet, text_encoder, c3=False):
            a, b = _padded(pairs.get(layer), shape, dim, alpha / dim)
            renamed[f"{layer}.lora_A.weight"], renamed[f"{layer}.lora_B.weight"] = a, b
    adapter = Adapter(renamed, meta.model_copy(update={"config": config}))
    check_adapter(base_fingerprint, unet, text_encoder, adapter)
    return adapter


def _padded(pair: Pair | None, shape: Sequence[int], dim: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return A and B of rank `dim` whose product, times `scale`, is that of `pair` times its own scale."""
    shape_a, shape_b = pair_shapes(shape, dim)
    a, b = torch.zeros(shape_a), torch.zeros(shape_b)
    if pair is not None:
        rank = len(pair.down)
        own = pair.alpha / rank
        a[:rank] = pair.down.float()
        b[:, :rank] = pair.up.float() if own == scale else pair.up.double().mul(own / scale).float()
    return a, b


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
    for key in sorted(layer_tensors.keys() - {DOWN, UP, ALPHA, MID}):
        raise InputError(f"{name}.{key}: not part of a LoRA or LoRA-C3Lier; other adapters cannot be imported")
    down, up = layer_tensors[DOWN], layer_tensors[UP]
    if MID in layer_tensors:
        down = _with_core(name, down, layer_tensors[MID])
    dim = down.shape[0] if down.ndim else 0
    fitted = []
    for key, tensor, expected in zip((DOWN, UP), (down, up), pair_shapes(shape, dim), strict=True):
        is_same = tuple(tensor.shape) + (1, 1) * (len(expected) == 4 and tensor.ndim == 2) == expected
        if not (is_same or (tensor.ndim == 4 and tuple(tensor.shape) == (*expected, 1, 1))) or dim == 0:
            raise InputError(
                f"{name}.{key}: shape {tuple(tensor.shape)} does not fit this model, which needs "
                f"{expected}; give an adapter of the same architecture"
            )
        fitted.append(tensor.reshape(expected))  # a 1x1 convolution may be stored as a matrix, and the reverse
    alpha = layer_tensors.get(ALPHA, torch.tensor(dim))  # old kohya files have no alpha; it equals the rank
    if alpha.numel() != 1:
        raise InputError(f"{name}.{ALPHA}: {alpha.numel()} numbers, but one is needed; export the file again")
    return Pair(fitted[0], fitted[1], float(alpha))


def _with_core(name: str, down: Tensor, core: Tensor) -> Tensor:
    """Return A of a convolution that is stored as a 1x1 convolution `down` and a core (CP decomposition)."""
    if core.ndim != 4 or down.ndim != 4 or core.shape[1] != down.shape[0] or down.shape[2:] != (1, 1):
        raise InputError(f"{name}.{MID}: shape {tuple(core.shape)} does not fit {DOWN}; export the file again")
    return torch.einsum("rskl,sc->rckl", core.float(), down.float()[:, :, 0, 0])


def _config(pairs: Mapping[str, Pair], needs_c3: bool) -> AdapterConfig:
    others = [pair for pair in pairs.values() if kind_of(pair.down.shape) != "conv3x3"]
    conv3x3 = [pair for pair in pairs.values() if kind_of(pair.down.shape) == "conv3x3"]
    dim, alpha = _rank_and_alpha(others)
    values = {"network_dim": dim, "network_alpha": alpha, "conv_dim": 0}
    if needs_c3:
        values["conv_dim"], values["conv_alpha"] = _rank_and_alpha(conv3x3)
    try:
        return AdapterConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{first['loc'][0]} = {first['input']}: {first['msg']}; export the file again") from error


def _rank_and_alpha(pairs: Sequence[Pair]) -> tuple[int, float]:
    """Return the highest rank, and the alpha of its common scale; if scales differ, alpha equals the rank."""
    if not pairs:
        return 1, 1.0
    dim = max(len(pair.down) for pair in pairs)
    scales = {pair.alpha / len(pair.down) for pair in pairs}
    alphas = {pair.alpha for pair in pairs if len(pair.down) == dim}
    alpha = alphas.pop() if len(scales) == 1 else 0.0
    return dim, alpha if 0 < alpha <= MAX_ALPHA else float(dim)
