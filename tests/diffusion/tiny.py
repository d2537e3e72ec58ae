"""A tiny random Stable Diffusion for fast tests, with every kind of module of a real one."""

import math
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from inandout.diffusion.lora.adapter import Adapter, AdapterMeta
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import adapted_layers, add_adapter, set_adapter_tensors
from inandout.diffusion.lora.targets import pair_shapes
from inandout.diffusion.pipeline import Pipeline
from inandout.diffusion.pretrain.build_vae import build_vae
from inandout.diffusion.pretrain.captions import vocabulary
from inandout.diffusion.pretrain.networks import build_scheduler, build_text_encoder, build_unet
from inandout.diffusion.pretrain.pca_latents import surface_components
from inandout.diffusion.pretrain.tokenizer import build_tokenizer

BASE = "0123456789abcdef" * 2
"""Fingerprint used for the tiny base."""


def tiny_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """Return a pipeline with random weights from `seed`: convolutions, attention, down- and upsamplers, two text
    layers.
    """
    tokenizer = build_tokenizer(vocabulary())
    pipeline = StableDiffusionPipeline(
        vae=build_vae(surface_components(70), seed, width=8, blocks=(1, 0)),
        text_encoder=build_text_encoder(len(tokenizer), seed, width=16).eval(),
        tokenizer=tokenizer,
        unet=build_unet(seed + 1, (8, 8, 8, 8), text_width=16, attention_from=2).eval(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def inpainting_pipeline() -> StableDiffusionInpaintPipeline:
    """Return the tiny pipeline with the UNet of an inpainting model: 2 C + 1 input channels."""
    parts = tiny_pipeline().components
    config = {**parts["unet"].config, "in_channels": 2 * parts["unet"].config.out_channels + 1}
    torch.manual_seed(0)
    parts["unet"] = UNet2DConditionModel.from_config(config).eval()
    return StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)


FAMILIES = ("sd", "sd inpainting", "sd2", "sd2 inpainting", "sdxl", "sdxl inpainting")
_XL_UNET = {
    "transformer_layers_per_block": (1, 1, 2), "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64, "cross_attention_dim": 40, "layers_per_block": 2,
}  # fmt: skip


def tiny_family(family: str, seed: int = 0) -> Pipeline:
    """Return a random base of one of `FAMILIES`, with the options and components that distinguish it."""
    name, _, inpainting = family.partition(" ")
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(["skt", "background", "cracked"])
    config: dict[str, Any] = {
        "sample_size": 16, "in_channels": 9 if inpainting else 4, "out_channels": 4, "layers_per_block": 1,
        "block_out_channels": (8, 8, 16), "cross_attention_dim": 16, "norm_num_groups": 4, "attention_head_dim": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "use_linear_projection": name != "sd",
    }  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4, 8), norm_num_groups=2, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.13 if name == "sdxl" else 0.18,
    )  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length, projection_dim=16, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id,
        hidden_act="quick_gelu" if name == "sd" else "gelu",
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False,
        set_alpha_to_one=False, prediction_type="v_prediction" if name == "sd2" else "epsilon",
    )  # fmt: skip
    unet = UNet2DConditionModel(**config | (_XL_UNET if name == "sdxl" else {}))
    parts: dict[str, Any] = {
        "unet": unet.eval(), "vae": vae.eval(), "text_encoder": CLIPTextModel(text).eval(), "tokenizer": tokenizer,
        "scheduler": scheduler,
    }  # fmt: skip
    pipeline: Pipeline
    if name == "sdxl":
        second = CLIPTextConfig(**text.to_dict() | {"hidden_size": 24})
        parts |= {"text_encoder_2": CLIPTextModelWithProjection(second).eval(), "tokenizer_2": tokenizer}
        xl = StableDiffusionXLInpaintPipeline if inpainting else StableDiffusionXLPipeline
        pipeline = xl(**parts, add_watermarker=False)
    else:
        plain = StableDiffusionInpaintPipeline if inpainting else StableDiffusionPipeline
        pipeline = plain(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.vae.enable_slicing()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_adapter(pipeline: Pipeline, **config: float) -> Adapter:
    """Return an adapter of random values for the pipeline, strong enough to change every image."""
    meta = AdapterMeta(
        config=AdapterConfig.model_validate(config), base=BASE, instance_prompt="skt background cracked",
        prior_prompt="background", clip_skip=1, sources=("ab" * 16,), code="cd" * 16, seed=3,
    )  # fmt: skip
    generator, tensors = torch.Generator().manual_seed(7), {}
    for name, layer in adapted_layers(pipeline, meta.config).items():
        shape = layer.weight.shape
        a, b = pair_shapes(shape, meta.config.dim_and_alpha(shape)[0])
        tensors[f"{name}.lora_A.weight"] = torch.randn(a, generator=generator) / math.prod(a[1:]) ** 0.5
        tensors[f"{name}.lora_B.weight"] = torch.randn(b, generator=generator) / 10
    return Adapter(tensors, meta)


def attach_adapter(pipeline: Pipeline, adapter: Adapter) -> None:
    """Add an adapter to a pipeline without merging it, for comparison with `merge`."""
    add_adapter(pipeline, adapter.meta.config, seed=0)
    set_adapter_tensors(pipeline, adapter.tensors)
