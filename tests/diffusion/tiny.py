"""A tiny random Stable Diffusion for fast tests, with every kind of module of a real one."""

import math

import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline, UNet2DConditionModel

from inandout.diffusion.lora.adapter import Adapter, AdapterMeta
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import adapted_layers, add_adapter, set_adapter_tensors
from inandout.diffusion.lora.targets import pair_shapes
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
        unet=build_unet(seed + 1, (8, 8, 8, 8), text_width=16).eval(),
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


def tiny_adapter(pipeline: StableDiffusionPipeline, **config: float) -> Adapter:
    """Return an adapter of random values for the pipeline, strong enough to change every image."""
    meta = AdapterMeta(
        config=AdapterConfig.model_validate(config), base=BASE, instance_prompt="skt background cracked",
        prior_prompt="background", clip_skip=1, sources=("ab" * 16,), code="cd" * 16, seed=3,
    )  # fmt: skip
    generator, tensors = torch.Generator().manual_seed(7), {}
    for name, layer in adapted_layers(pipeline.unet, pipeline.text_encoder, meta.config).items():
        shape = layer.weight.shape
        a, b = pair_shapes(shape, meta.config.dim_and_alpha(shape)[0])
        tensors[f"{name}.lora_A.weight"] = torch.randn(a, generator=generator) / math.prod(a[1:]) ** 0.5
        tensors[f"{name}.lora_B.weight"] = torch.randn(b, generator=generator) / 10
    return Adapter(tensors, meta)


def attach_adapter(pipeline: StableDiffusionPipeline, adapter: Adapter) -> None:
    """Add an adapter to a pipeline without merging it, for comparison with `merge`."""
    add_adapter(pipeline.unet, pipeline.text_encoder, adapter.meta.config, seed=0)
    set_adapter_tensors(pipeline.unet, pipeline.text_encoder, adapter.tensors)
