"""Untrained text encoder, UNet and noise schedule of `surface-diffusion`."""

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from inandout.diffusion.pretrain.pca_latents import CHANNELS
from inandout.diffusion.pretrain.tokenizer import LENGTH

TEXT_WIDTH = 128
"""Width of the text states; the UNet's `cross_attention_dim`."""

WORDS_GAIN = 25.0
"""Factor on CLIP's initial word embeddings, so that words differ more than positions. It was introduced with the lower
learning rate of the text encoder (`TEXT_SHARE`); its separate effect was not measured."""

WIDTHS = (32, 64, 128, 192)
"""Channels of the UNet at 1/2, 1/4, 1/8 and 1/16 of the image's sides; the three lowest levels have attention."""


def build_text_encoder(vocabulary_size: int, seed: int, width: int = TEXT_WIDTH) -> CLIPTextModel:
    """Return a CLIP text encoder with two layers; the last two tokens of the vocabulary are start and end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CLIPTextConfig(
            vocab_size=vocabulary_size, hidden_size=width, intermediate_size=4 * width, projection_dim=width,
            num_hidden_layers=2, num_attention_heads=max(width // 32, 1), max_position_embeddings=LENGTH,
            bos_token_id=vocabulary_size - 2, eos_token_id=vocabulary_size - 1, pad_token_id=vocabulary_size - 1,
        )  # fmt: skip
        encoder = CLIPTextModel(config)
    with torch.no_grad():
        encoder.embeddings.token_embedding.weight.mul_(WORDS_GAIN)
    return encoder


def build_unet(
    seed: int, widths: tuple[int, ...] = WIDTHS, text_width: int = TEXT_WIDTH, attention_from: int = 1
) -> UNet2DConditionModel:
    """Return the UNet: one residual block per level down, two up, and cross-attention from level `attention_from` on.

    The pooled prompt is also added to the time embedding, as in DeepFloyd IF, so that it reaches every block. With
    cross-attention alone, two prompts made no difference after 500 steps; with it they do after 200.
    """
    attending = [level >= attention_from for level in range(len(widths))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=32, in_channels=CHANNELS, out_channels=CHANNELS, layers_per_block=1,
            block_out_channels=widths, norm_num_groups=min(16, *widths),
            cross_attention_dim=text_width, addition_embed_type="text", addition_embed_type_num_heads=4,
            attention_head_dim=tuple(max(width // 32, 1) for width in widths),  # diffusers: the number of heads
            down_block_types=tuple("CrossAttnDownBlock2D" if text else "DownBlock2D" for text in attending),
            up_block_types=tuple("CrossAttnUpBlock2D" if text else "UpBlock2D" for text in reversed(attending)),
        )  # fmt: skip
    return unet.to(memory_format=torch.channels_last)


def build_scheduler() -> DDIMScheduler:
    """Return Stable Diffusion's betas with zero terminal SNR (Lin 2024), so that the UNet learns brightness, too.

    This requires v-prediction, and sampling from the last step ("trailing").
    """
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True,
        prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False, steps_offset=1,
    )  # fmt: skip
