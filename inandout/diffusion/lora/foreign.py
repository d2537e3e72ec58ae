"""Recognise adapters of other programs, and rename those of diffusers and peft to kohya's names.

diffusers writes `unet.LAYER.lora_A.weight` or, before 0.25, `unet.LAYER.lora.down.weight` and
`unet.BLOCK.processor.to_q_lora.down.weight`; peft writes `base_model.model.LAYER.lora_A.weight`, with ranks and alphas
in `adapter_config.json` beside the file. Without a stated alpha it equals the rank.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from torch import Tensor

from inandout.diffusion.lora.kohya import ALPHA, DOWN, UP, kohya_name
from inandout.errors import InputError

_SUFFIX = re.compile(
    r"(?P<layer>.+?)(?:\.lora_(?P<letter>[AB])(?:\.[\w-]+)?|(?:\.lora|_lora|\.lora_linear_layer)\.(?P<way>down|up))\.weight"
)
_ALPHA_SUFFIX = re.compile(r"(?P<layer>.+?)(?:\.lora|_lora|\.lora_linear_layer)?\.alpha")

_KINDS = {
    "a whole checkpoint, not an adapter; give it as base": (
        "model.diffusion_model.", "first_stage_model.", "cond_stage_model.",
    ),
    "a LoHa adapter": ("hada_",),
    "a LoKr adapter": ("lokr_",),
    "a DoRA adapter": ("dora_scale", "lora_magnitude_vector"),
    "an adapter of full weight differences": (".diff",),
    "an IA3 adapter": ("ia3_", ".on_input"),
    "a textual inversion": ("emb_params", "string_to_param"),
}  # fmt: skip
"""Descriptions of files that cannot be imported, and parts of the names of their tensors."""


_XL_KINDS: dict[bool, dict[str, tuple[str, ...]]] = {
    False: {
        "an adapter for Stable Diffusion XL; give one for this base, or base=<SDXL>": (
            "lora_te1_", "lora_te2_", "text_encoder_2.",
        ),
    },
    True: {"an adapter for Stable Diffusion 1 or 2; give one for SDXL, or another base": ("lora_te_",)},
}  # fmt: skip
"""The same for a base that is, or is not, an SDXL."""


def refuse_kinds(path: Path, tensors: Mapping[str, Tensor], xl: bool) -> None:
    """Raise an InputError that names the method if a file is no LoRA for a base of this kind.

    Args:
        path: the file.
        tensors: of the file.
        xl: whether the base is an SDXL.

    Raises:
        InputError: the file is a checkpoint, or an adapter of another method or base.
    """
    for kind, parts in (_KINDS | _XL_KINDS[xl]).items():
        names = [name for name in tensors if any(part in name for part in parts)]
        if names:
            fix = "" if ";" in kind else "; give a LoRA or LoRA-C3Lier"
            raise InputError(f"{path}: is {kind} ({names[0]}), which cannot be imported{fix}")


def without_embeddings(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors without embeddings that a file bundles with its LoRA, and the words of these embeddings."""
    bundled = [name for name in tensors if name.startswith("bundle_emb.")]
    words = sorted({name.split(".")[1] for name in bundled})
    return {name: tensor for name, tensor in tensors.items() if name not in bundled}, words


def is_diffusers(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether tensors have the names of diffusers or peft."""
    return any(_SUFFIX.fullmatch(name) for name in tensors)


def from_diffusers(
    tensors: Mapping[str, Tensor], header: Mapping[str, str], path: Path, xl: bool
) -> dict[str, Tensor]:  # fmt: skip
    """Return the tensors with kohya's names, of SDXL if `xl`, and the alpha of every layer.

    Raises:
        InputError: a name or the configuration of ranks and alphas cannot be read.
    """
    configs = _configs(header, path)
    renamed: dict[str, Tensor] = {}
    stated: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, tensor in tensors.items():
        if found := _SUFFIX.fullmatch(name):
            layer = _layer(found["layer"])
            is_down = found["letter"] == "A" or found["way"] == "down"
            renamed[f"{kohya_name(layer, xl)}.{DOWN if is_down else UP}"] = tensor
            if is_down and tensor.ndim:
                ranks[layer] = len(tensor)
        elif found := _ALPHA_SUFFIX.fullmatch(name):
            stated[_layer(found["layer"])] = tensor
        else:
            raise InputError(f"{path}: {name} is no weight of a LoRA; give a LoRA or LoRA-C3Lier")
    for layer, rank in ranks.items():
        alpha = stated.get(layer)
        renamed[f"{kohya_name(layer, xl)}.{ALPHA}"] = (
            torch.tensor(_alpha(configs, layer, rank, path)) if alpha is None else alpha
        )
    return renamed


def _layer(name: str) -> str:
    """Return the name of a layer of this package."""
    plain = name.removeprefix("base_model.model.").replace(".processor.", ".")
    if not plain.startswith(("unet.", "text_encoder.", "text_encoder_2.")):
        plain = f"{'text_encoder' if plain.startswith(('text_model.', 'encoder.layers.')) else 'unet'}.{plain}"
    plain = plain.replace("text_encoder.text_model.", "text_encoder.")
    return f"{plain}.0" if plain.endswith(".to_out") else plain


def _configs(header: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return peft's configurations of ranks and alphas: `unet.lora_alpha` and so on, `.lora_alpha` for all parts."""
    beside = path.with_name("adapter_config.json")
    try:
        if LORA_ADAPTER_METADATA_KEY in header:
            found = json.loads(header[LORA_ADAPTER_METADATA_KEY])
        elif beside.is_file():
            found = {f".{key}": value for key, value in json.loads(beside.read_text(encoding="utf-8")).items()}
        else:
            return {}
    except (ValueError, AttributeError, OSError, RecursionError) as error:
        raise InputError(f"{path}: its configuration of alphas cannot be read ({error}); export it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: its configuration of alphas is no JSON object; export it again")
    return found


def _alpha(configs: Mapping[str, Any], layer: str, rank: int, path: Path) -> float:
    part, name = layer.split(".", 1)
    for prefix in (f"{part}.", "."):
        patterns = configs.get(f"{prefix}alpha_pattern") or {}
        value = configs.get(f"{prefix}lora_alpha")
        if isinstance(patterns, dict):
            matches = [alpha for key, alpha in patterns.items() if name == key or name.endswith(f".{key}")]
            value = matches[0] if matches else value
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{path}: the alpha of {layer} is {value!r}; export the adapter again")
            scaling = (rank**0.5) if configs.get(f"{prefix}use_rslora") is True else 1.0
            return float(value) * scaling
    return float(rank)
