"""Adapters in the format of kohya-ss/sd-scripts, which most programs for Stable Diffusion read.

Layer names have `_` for `.`. A is `lora_down`, B is `lora_up`, and each layer has its own `alpha` tensor. UNet layers
have the names of diffusers, those of SDXL the names of the original release; text-encoder layers have the names of
transformers before 5.6.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from inandout.diffusion.lora.adapter import Adapter, AdapterMeta, check_adapter
from inandout.diffusion.lora.config import AdapterConfig, kind_of
from inandout.diffusion.lora.targets import find_layers, pair_shapes
from inandout.diffusion.pipeline import Pipeline, is_xl
from inandout.errors import InputError

PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
XL_PREFIXES = {
    "unet": "lora_unet_", "text_encoder": "lora_te1_text_model_", "text_encoder_2": "lora_te2_text_model_",
}  # fmt: skip
"""The same for SDXL."""
_RESNET = {
    "conv1": "in_layers_2", "time_emb_proj": "emb_layers_1", "conv2": "out_layers_3",
    "conv_shortcut": "skip_connection",
}  # fmt: skip
"""Layer of a residual block in diffusers to its original name."""
_MIDDLE = {"resnets_0": "middle_block_0", "attentions_0": "middle_block_1", "resnets_1": "middle_block_2"}
_XL_BLOCK_LAYERS = 2
"""Residual blocks of a down block of SDXL; an up block has one more."""

DOWN, UP, ALPHA, MID = "lora_down.weight", "lora_up.weight", "alpha", "lora_mid.weight"
MAX_ALPHA = 1024.0
"""Limit of `AdapterConfig`."""


class Pair(NamedTuple):
    """A, B and alpha of one layer."""

    down: Tensor
    up: Tensor
    alpha: float


def kohya_name(layer: str, xl: bool = False) -> str:
    """Return the kohya name of a layer, of SDXL if `xl`.

    For example `unet.mid_block.resnets.0.conv1` is `lora_unet_mid_block_resnets_0_conv1`, and in SDXL
    `lora_unet_middle_block_0_in_layers_2`.
    """
    part, name = layer.split(".", 1)
    flat = name.removeprefix("text_model.").replace(".", "_")
    if not xl:
        return PREFIXES[part] + flat
    return XL_PREFIXES[part] + (_original_name(flat) if part == "unet" else flat)


def _original_name(name: str) -> str:
    """Return the name of a layer of SDXL's UNet in the original release, from that of diffusers, with `_` for `.`."""
    if found := re.fullmatch(r"mid_block_(resnets_\d|attentions_\d)_(.*)", name):
        return f"{_MIDDLE[found[1]]}_{_RESNET.get(found[2], found[2])}"
    found = re.fullmatch(r"(down|up)_blocks_(\d)_(resnets|attentions|downsamplers|upsamplers)_(\d)_(.*)", name)
    assert found is not None, name
    down, block, kind, layer, rest = found[1] == "down", int(found[2]), found[3], int(found[4]), found[5]
    number = block * (_XL_BLOCK_LAYERS + 1)
    if kind == "downsamplers":
        return f"input_blocks_{number + _XL_BLOCK_LAYERS + 1}_0_op"
    if kind == "upsamplers":
        return f"output_blocks_{number + _XL_BLOCK_LAYERS}_2_conv"
    side = f"input_blocks_{number + layer + 1}" if down else f"output_blocks_{number + layer}"
    return f"{side}_{int(kind == 'attentions')}_{_RESNET.get(rest, rest)}"


def to_kohya(adapter: Adapter) -> dict[str, Tensor]:
    """Return the tensors of a kohya file; the values are unchanged."""
    tensors, xl = {}, any(name.startswith("text_encoder_2.") for name in adapter.tensors)
    for name, a in adapter.tensors.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            kohya_layer, (_, alpha) = kohya_name(layer, xl), adapter.meta.config.dim_and_alpha(a.shape)
            tensors[f"{kohya_layer}.{DOWN}"] = a
            tensors[f"{kohya_layer}.{UP}"] = adapter.tensors[f"{layer}.lora_B.weight"]
            tensors[f"{kohya_layer}.{ALPHA}"] = torch.tensor(float(alpha))
    return tensors


def from_kohya(
    tensors: Mapping[str, Tensor], meta: AdapterMeta, base_fingerprint: str, pipeline: Pipeline
) -> Adapter:  # fmt: skip
    """Convert kohya's tensors to an adapter; ranks and alphas come from the tensors, the rest from `meta`.

    Layers that the file leaves out get zeros. If ranks differ, smaller ones are padded with zeros; if alphas differ, B
    is multiplied by alpha / rank. All of this is exact.

    Raises:
        InputError: a tensor is unknown, incomplete or does not fit, or `meta` names another base.
    """
    layers, lierla = find_layers(pipeline, c3=True), find_layers(pipeline, c3=False)
    shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
    pairs = _pairs(tensors, shapes, is_xl(pipeline))
    if not pairs:
        raise InputError("the file has no layer of a LoRA; give a LoRA or LoRA-C3Lier")
    needs_c3 = bool(pairs.keys() - lierla.keys())
    config = _config(pairs, needs_c3)
    renamed = {}
    for layer, shape in shapes.items():
        dim, alpha = config.dim_and_alpha(shape)
        if layer in pairs or needs_c3 or layer in lierla:
            a, b = _padded(pairs.get(layer), shape, dim, alpha / dim)
            renamed[f"{layer}.lora_A.weight"], renamed[f"{layer}.lora_B.weight"] = a, b
    adapter = Adapter(renamed, meta.model_copy(update={"config": config}))
    check_adapter(base_fingerprint, pipeline, adapter)
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


def _pairs(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], xl: bool) -> dict[str, Pair]:
    by_layer: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kohya_layer, _, key = name.partition(".")
        by_layer.setdefault(kohya_layer, {})[key] = tensor
    names = {layer: _used_name(layer, by_layer.keys(), xl) for layer in shapes}
    unknown = sorted(by_layer.keys() - set(names.values()))
    if unknown:
        raise InputError(
            f"{unknown[0]}: this model has no such layer, or an adapter cannot change it ({len(unknown)} of "
            f"{len(by_layer)} layers); give a LoRA or LoRA-C3Lier of the same architecture"
        )
    return {layer: _pair(name, shapes[layer], by_layer[name]) for layer, name in names.items() if name in by_layer}


def _used_name(layer: str, used: Collection[str], xl: bool) -> str:
    """Return the name of a layer in a file; some programs write diffusers' names for SDXL's UNet, too."""
    diffusers_name = f"{PREFIXES['unet']}{layer.removeprefix('unet.').replace('.', '_')}"
    return diffusers_name if xl and diffusers_name in used else kohya_name(layer, xl)


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
