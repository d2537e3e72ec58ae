"""Export and import files in the format of kohya-ss/sd-scripts."""

import json
import logging
from pathlib import Path

from diffusers import StableDiffusionPipeline

from inandout.checkpoint import write_tensors
from inandout.diffusion.lora.adapter import Adapter, AdapterMeta
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.foreign import from_diffusers, is_diffusers, refuse_kinds, without_embeddings
from inandout.diffusion.lora.kohya import from_kohya, to_kohya
from inandout.diffusion.lora.safetensors_io import META, read_meta, read_tensors

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
    if _is_sd_v1(adapter):
        header["ss_base_model_version"] = "sd_v1"
    write_tensors(path, to_kohya(adapter), header)


def import_kohya(path: Path, pipeline: StableDiffusionPipeline, base_fingerprint: str) -> Adapter:
    """Read an adapter for this base, in the format of kohya, diffusers or peft.

    A file that this package exported contains its provenance. For files of other programs the base is assumed to be
    this one; prompts, training images and code are unknown (empty).

    Raises:
        InputError: the file cannot be read, is a pickle, is an adapter of another method, was trained on another base,
            or a tensor is unknown, missing or does not fit.
    """
    tensors, header = read_tensors(path)
    tensors, words = without_embeddings(tensors)
    refuse_kinds(path, tensors)
    if words:
        _log.warning("%s: its embeddings of %s are not imported, only its LoRA", path, ", ".join(words))
    if is_diffusers(tensors):
        tensors = from_diffusers(tensors, header, path)
    meta = read_meta(path, header) if META in header else _foreign_meta(header, base_fingerprint)
    return from_kohya(tensors, meta, base_fingerprint, pipeline.unet, pipeline.text_encoder)


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


def _is_sd_v1(adapter: Adapter) -> bool:
    """Return whether the widths are Stable Diffusion 1's: twelve text layers of 768, first UNet block of 320."""
    widths = {
        "text_encoder.encoder.layers.11.mlp.fc1": 768,
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": 768,
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q": 320,
    }
    found = {layer: adapter.tensors.get(f"{layer}.lora_A.weight") for layer in widths}
    return all(a is not None and a.shape[1] == widths[layer] for layer, a in found.items())
