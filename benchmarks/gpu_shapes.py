"""Sizes of the benchmark, and Stable Diffusion with random weights: full size, or toy size for tests."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.gpu_card import DEVICE
from inandout.classifier.config import Backbone
from inandout.data.images import write_image
from inandout.data.surfaces import draw_surface
from inandout.diffusion.base.folder import quiet
from inandout.diffusion.pipeline import Pipeline
from inandout.diffusion.pretrain.tokenizer import build_tokenizer

UNET = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "cross_attention_dim": 768,
    "attention_head_dim": 8, "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
}  # fmt: skip
"""unet/config.json of Stable Diffusion 1.5: 859,520,964 parameters."""
TEXT = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "projection_dim": 768, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "bos_token_id": 49406,
    "eos_token_id": 49407, "pad_token_id": 49407,
}  # fmt: skip
"""Text encoder of CLIP ViT-L/14: 123,060,480 parameters."""
VAE = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32,
    "block_out_channels": (128, 256, 512, 512), "sample_size": 512, "scaling_factor": 0.18215,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
"""vae/config.json of Stable Diffusion 1.5: 83,653,863 parameters."""

XL_UNET = {
    "sample_size": 128, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20), "block_out_channels": (320, 640, 1280), "use_linear_projection": True,
    "transformer_layers_per_block": (1, 2, 10), "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
"""unet/config.json of SDXL: 2,567,463,684 parameters."""
XL_TEXT = TEXT | {
    "hidden_size": 1280, "intermediate_size": 5120, "projection_dim": 1280, "num_hidden_layers": 32,
    "num_attention_heads": 20, "hidden_act": "gelu",
}  # fmt: skip
"""Second text encoder of SDXL, OpenCLIP ViT-bigG/14: 694,659,840 parameters."""

PROMPTS = ("skt background", "background")
"""Prompts of instance images and of class images."""


@dataclass(frozen=True)
class Size:
    """Sizes of all measurements; the defaults are for the paper's setup on a data-centre GPU."""

    unet: dict[str, Any] = field(default_factory=lambda: UNET)
    text: dict[str, Any] = field(default_factory=lambda: TEXT)
    vae: dict[str, Any] = field(default_factory=lambda: VAE)
    xl_unet: dict[str, Any] = field(default_factory=lambda: XL_UNET)
    xl_text: dict[str, Any] = field(default_factory=lambda: XL_TEXT)
    side: int = 512
    """Side in px of the images that Stable Diffusion trains on and draws."""
    xl_side: int = 1024
    """The same of SDXL."""
    batch: int = 12
    """Images per fine-tuning step; half are class images."""
    warm_up: int = 3
    timed: int = 8
    """Measured steps of a training."""
    drawn: int = 8
    """Images in a drawn batch."""
    denoising: int = 8
    """Denoising steps of a measured batch; must divide 1,000 (DDIM)."""
    backbone: Backbone = "resnet50"
    parts: tuple[int, int] = (200, 600)
    """Height and width of the classifier's images in px."""
    part_batches: tuple[int, ...] = (32, 5)
    settings: tuple[str, ...] = ("default", "bf16", "fp32", "tf32")
    """Precision settings of the classifier, see `gpu_classifier.py`."""
    part_steps: int = 20
    """Steps per epoch of the classifier."""
    compiler: str = "inductor"
    matrix: int = 8192
    copied: int = 2**28
    """fp32 numbers that the bandwidth measurement copies."""


FULL = Size()
TOY = Size(
    unet=UNET | {
        "sample_size": 8, "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 2,
        "block_out_channels": (32, 64), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    text=TEXT | {
        "vocab_size": 1000, "hidden_size": 32, "intermediate_size": 64, "projection_dim": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "bos_token_id": 998, "eos_token_id": 999, "pad_token_id": 999,
    },
    vae=VAE | {"block_out_channels": (32,) * 4, "layers_per_block": 1, "sample_size": 64},
    xl_unet=XL_UNET | {
        "sample_size": 8, "layers_per_block": 1, "cross_attention_dim": 64, "attention_head_dim": (2, 2, 2),
        "block_out_channels": (32, 32, 64), "transformer_layers_per_block": (1, 1, 2), "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
    },
    xl_text=XL_TEXT | {
        "vocab_size": 1000, "hidden_size": 32, "intermediate_size": 64, "projection_dim": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "bos_token_id": 998, "eos_token_id": 999, "pad_token_id": 999,
    },
    side=64, xl_side=64, batch=4, warm_up=1, timed=2, drawn=2, denoising=4, backbone="resnet18", parts=(32, 64),
    part_batches=(2,), settings=("default", "bf16"), part_steps=1, compiler="eager", matrix=128, copied=2**16,
)  # fmt: skip
SIZES = {"full": FULL, "toy": TOY}


def build_pipeline(size: Size, dtype: torch.dtype, vae_dtype: torch.dtype, xl: bool = False) -> Pipeline:
    """Build Stable Diffusion, or SDXL, with random weights on the device; channels-last, as from `open_base`."""
    torch.manual_seed(0)
    with quiet(), torch.device(DEVICE):
        unet = UNet2DConditionModel(**(size.xl_unet if xl else size.unet)).to(dtype)
        text_encoder = CLIPTextModel(CLIPTextConfig(**size.text)).to(dtype)
        vae = AutoencoderKL(**size.vae).to(vae_dtype)
    tokenizer = build_tokenizer(["skt", "background"])
    tokenizer.model_max_length = size.text["max_position_embeddings"]
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False,
        set_alpha_to_one=False,
    )  # fmt: skip
    parts = {
        "vae": vae.eval(), "text_encoder": text_encoder.eval(), "tokenizer": tokenizer, "unet": unet.eval(),
        "scheduler": scheduler,
    }  # fmt: skip
    pipeline: Pipeline
    if xl:
        with quiet(), torch.device(DEVICE):
            second = CLIPTextModelWithProjection(CLIPTextConfig(**size.xl_text)).to(dtype).eval()
        pipeline = StableDiffusionXLPipeline(
            **parts, text_encoder_2=second, tokenizer_2=tokenizer, add_watermarker=False
        )
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    for part in (unet, vae):
        part.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def image_files(folder: Path, size: Size, batch: int) -> list[Path]:
    """Draw missing image files of a batch: instance images of camera size, then class images of training size."""
    files = []
    for number in range(batch):
        camera = number < batch // 2
        width, height = (630, 230) if camera else (size.side, size.side)
        files.append(folder / f"{'camera' if camera else 'class'}_{number}.png")
        if not files[-1].exists():
            write_image(files[-1], draw_surface(width, height, seed=number).image)
    return files


def random_images(count: int, height: int, width: int) -> np.ndarray:
    """Return the same uint8 noise images (N, H, W, 3) on every call."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
