"""Export and import files in the format of kohya-ss/sd-scripts."""

import json
import logging
from pathlib import Path

from inandout.checkpoint import write_tensors
from inandout.diffusion.lora.adapter import Adapter, AdapterMeta
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.foreign import from_diffusers, is_diffusers, refuse_kinds, without_embeddings
from inandout.diffusion.lora.kohya import from_kohya, to_kohya
from inandout.diffusion.lora.safetensors_io import META, read_meta, read_tensors
from inandout.diffusion.pipeline import Pipeline, is_xl

_log = logging.getLogger(__name__)


def export_kohya(path: Path, adapter: Adapter) -> None:
    """Write an adapter for other programs.

    Raises:
        InputError: the file cannot be written.
    """
    config = adapter.meta.config
    header = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config.network_dim),
        "ss_network_alpha": f"{config.network_alpha:g}",
        "ss_clip_skip": str(adapter.meta.clip_skip),
        "ss_seed": str(adapter.meta.seed),
        META: adapter.meta.model_dump_json(),
    }
    if config.conv_dim:
        conv = {"conv_dim": str(config.conv_dim), "conv_alpha": f"{config.conv_alpha:g}"}
        header["ss_network_args"] = json.dumps(conv)
    if version := _version(adapter):
        header["ss_base_model_version"] = version
    write_tensors(path, to_kohya(adapter), header)


def import_kohya(path: Path, pipeline: Pipeline, base_fingerprint: str) -> Adapter:
    """Read an adapter for this base, in the format of kohya, diffusers or peft.

    A file that this package exported contains its provenance. For files of other programs the base is assumed to be
    this one; prompts, training images and code are unknown (empty).

    Raises:
        InputError: the file cannot be read, is a pickle, is an adapter of another method, was trained on another base,
            or a tensor is unknown, missing or does not fit.
    """
    tensors, header = read_tensors(path)
    tensors, words = without_embeddings(tensors)
    refuse_kinds(path, tensors, is_xl(pipeline))
    if words:
        _log.warning("%s: its embeddings of %s are not imported, only its LoRA", path, ", ".join(words))
    if is_diffusers(tensors):
        tensors = from_diffusers(tensors, header, path, is_xl(pipeline))
    meta = read_meta(path, header) if META in header else _foreign_meta(header, base_fingerprint)
    return from_kohya(tensors, meta, base_fingerprint, pipeline)


def _foreign_meta(header: dict[str, str], base_fingerprint: str) -> AdapterMeta:
    clip_skip, seed = header.get("ss_clip_skip", ""), header.get("ss_seed", "")  # "None" if not set
    return AdapterMeta(
        config=AdapterConfig(),
        base=base_fingerprint,
        instance_prompt="",
        prior_prompt="",
        clip_skip=max(int(clip_skip), 1) if clip_skip.isdecimal() else 1,
        sources=(),
        code="",
        seed=int(seed) if seed.isdecimal() else 0,
    )


_VERSIONS = {
    "text_encoder_2.text_model.encoder.layers.31.mlp.fc1": (1280, "sdxl_base_v1-0"),
    "text_encoder.encoder.layers.22.mlp.fc1": (1024, "sd_v2"),
    "text_encoder.encoder.layers.11.mlp.fc1": (768, "sd_v1"),
}
"""Last layer of a text encoder: its width, and kohya's name of the model version that has both."""


def _version(adapter: Adapter) -> str | None:
    """Return kohya's name of the architecture; None if it is none of the published ones."""
    for layer, (width, version) in _VERSIONS.items():
        a = adapter.tensors.get(f"{layer}.lora_A.weight")
        if a is not None:
            return version if a.shape[1] == width and _has_wide_unet(adapter) else None
    return None


def _has_wide_unet(adapter: Adapter) -> bool:
    """Return whether the first attention of the UNet has the width of the published models."""
    widths = {"down_blocks.0": 320, "down_blocks.1": 640}
    layers = {f"unet.{block}.attentions.0.transformer_blocks.0.attn1.to_q": width for block, width in widths.items()}
    found = {layer: adapter.tensors.get(f"{layer}.lora_A.weight") for layer in layers}
    present = {layer: a.shape[1] for layer, a in found.items() if a is not None}
    return bool(present) and all(width == layers[layer] for layer, width in present.items())
