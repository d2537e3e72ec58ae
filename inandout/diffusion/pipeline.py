"""Components of a Stable Diffusion of any version, and the device and type of their weights."""

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any, TypeAlias, get_args

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from inandout.hardware import Hardware, Precision

Pipeline: TypeAlias = StableDiffusionPipeline | StableDiffusionXLPipeline
"""A Stable Diffusion 1 or 2, or an SDXL, for text-to-image or inpainting."""

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
"""Names of text encoders; the second one is SDXL's."""


def text_encoders(pipeline: Pipeline) -> dict[str, Any]:
    """Return the text encoders by name."""
    found = {name: getattr(pipeline, name, None) for name in TEXT_ENCODERS}
    return {name: encoder for name, encoder in found.items() if encoder is not None}


def adaptable_models(pipeline: Pipeline) -> dict[str, Any]:
    """Return the models that an adapter changes, by name: the UNet and the text encoders."""
    return {"unet": pipeline.unet, **text_encoders(pipeline)}


def is_xl(pipeline: Pipeline) -> bool:
    """Return whether the pipeline is an SDXL."""
    return "text_encoder_2" in text_encoders(pipeline)


def is_inpainting(pipeline: Pipeline) -> bool:
    """Return whether the UNet also reads a mask and the latents of the masked image."""
    unet = pipeline.unet.config
    return bool(unet.in_channels == 2 * unet.out_channels + 1)


def weight_type(pipeline: Pipeline) -> torch.dtype:
    """Return the type of the UNet's own weights; those of an adapter may have another one."""
    dtype: torch.dtype = pipeline.unet.conv_in.weight.dtype
    return dtype


def hardware_of(pipeline: Pipeline) -> Hardware:
    """Return the device and the precision of the UNet."""
    device, dtype = pipeline.unet.conv_in.weight.device, weight_type(pipeline)
    return next(found for each in get_args(Precision) if (found := Hardware(device, each)).dtype == dtype)


def move(pipeline: Pipeline, hardware: Hardware) -> None:
    """Move all models to the device, in place; round UNet and text encoders to the precision. The VAE stays in fp32."""
    pipeline.vae.to(hardware.device)
    for model in adaptable_models(pipeline).values():
        nn.Module.to(model, device=hardware.device, dtype=hardware.dtype)  # diffusers' own `to` warns without a reason


NewWeight: TypeAlias = Callable[[str, Tensor], Tensor]
"""Name of a weight, such as `unet.conv_in.weight`, and its value to its new value in any type."""


def rebuild(pipeline: Pipeline, hardware: Hardware, new_weight: NewWeight = lambda name, weight: weight) -> Pipeline:
    """Return a new pipeline on the device with new weights of UNet and text encoders; the given one is not changed.

    Weights are computed one by one and rounded once to the precision, so the device never holds more than the new
    models. Tensors that do not change share memory with the given pipeline.
    """

    def rebuild_model(part: str, model: nn.Module) -> nn.Module:
        return _with_tensors(model, lambda name, old: _place(new_weight(f"{part}.{name}", old), old, hardware))

    rebuilt = copy(pipeline)
    models = {part: rebuild_model(part, model) for part, model in adaptable_models(pipeline).items()}
    vae = pipeline.vae
    if vae.device.type != hardware.device.type:
        vae = _with_tensors(vae, lambda name, value: value.to(hardware.device))
    rebuilt.register_modules(**models, vae=vae, scheduler=deepcopy(pipeline.scheduler))
    return rebuilt


def _place(new: Tensor, old: Tensor, hardware: Hardware) -> Tensor:
    """Return a weight on the device, rounded and in the memory layout of the old one; integers stay integers."""
    if not old.is_floating_point():
        return old.to(hardware.device)
    if new is not old and new.stride() != old.stride():
        new = torch.empty_like(old, dtype=new.dtype).copy_(new)
    return new.to(hardware.device, hardware.dtype)


@torch.no_grad()
def _with_tensors(model: nn.Module, function: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Return a copy of a model whose parameters and buffers are those that a function returns for name and value."""
    replaced: dict[int, Any] = {}
    for name, parameter in model.named_parameters():
        replaced[id(parameter)] = nn.Parameter(function(name, parameter.detach()), parameter.requires_grad)
    for name, buffer in model.named_buffers():
        replaced[id(buffer)] = function(name, buffer)
    return deepcopy(model, replaced)
