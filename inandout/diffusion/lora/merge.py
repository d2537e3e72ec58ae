"""Merge an adapter into its base.

`alpha` is the paper's merging weight (section 3): a weight becomes W + alpha * (network_alpha / network_dim) * B A,
with conv_alpha and conv_dim in 3x3 convolutions. It is unrelated to `network_alpha`.
"""

from copy import copy, deepcopy

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from inandout.diffusion.lora.adapter import Adapter, check_adapter
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import adapted_layers
from inandout.errors import InputError


def merge(
    pipeline: StableDiffusionPipeline, base_fingerprint: str, adapter: Adapter, alpha: float
) -> StableDiffusionPipeline:  # fmt: skip
    """Return a new pipeline with `alpha` times the adapter added to the weights; 0 gives the base bit for bit.

    UNet, text encoder and scheduler are copied, the other components are shared. The given pipeline is not changed.

    Raises:
        InputError: `alpha` is outside 0..1, or the adapter was trained on another base or does not fit.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha = {alpha} must be in 0..1; 0 gives the base model, 1 the full adapter")
    check_adapter(base_fingerprint, pipeline.unet, pipeline.text_encoder, adapter)
    merged = copy(pipeline)
    merged.register_modules(
        unet=deepcopy(pipeline.unet),
        text_encoder=deepcopy(pipeline.text_encoder),
        scheduler=deepcopy(pipeline.scheduler),
    )
    if alpha:  # adding zero would turn -0 into 0
        _add(merged, adapter, alpha)
    return merged


@torch.no_grad()
def _add(pipeline: StableDiffusionPipeline, adapter: Adapter, alpha: float) -> None:
    config = adapter.meta.config
    for name, layer in adapted_layers(pipeline.unet, pipeline.text_encoder, config).items():
        a, b = (adapter.tensors[f"{name}.lora_{letter}.weight"].to(layer.weight.device) for letter in "AB")
        layer.weight.copy_(layer.weight.float() + alpha * lora_delta(config, a, b))


def lora_delta(config: AdapterConfig, a: Tensor, b: Tensor) -> Tensor:
    """Return the change (out, in, ...) of a layer's weight in fp32, from `a` (dim, in, ...) and `b` (out, dim, ...)."""
    dim, layer_alpha = config.dim_and_alpha(a.shape)
    product = b.float().flatten(1) @ a.float().flatten(1)
    return (layer_alpha / dim) * product.view(len(b), *a.shape[1:])
