"""The LoRA-C3Lier adapter of a Stable Diffusion, implemented with peft.

The weight W (out, in, ...) of a layer becomes W + (alpha / dim) * B A. A (dim, in, ...) has the kernel size of the
layer, B (out, dim, ...) a kernel size of 1 (Hu et al. 2021; kohya-ss/sd-scripts for convolutions).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig
from torch import Tensor, nn

from inandout.diffusion.lora.config import AdapterConfig, kind_of
from inandout.diffusion.lora.targets import Layer, find_layers, refuse_misfit
from inandout.diffusion.pipeline import Pipeline, adaptable_models, text_encoders


def adapted_layers(pipeline: Pipeline, config: AdapterConfig) -> dict[str, Layer]:
    """Return by name the layers that get an adapter with this configuration, from models without adapter."""
    return find_layers(pipeline, c3=config.conv_dim > 0)


def add_adapter(pipeline: Pipeline, config: AdapterConfig, seed: int) -> None:
    """Add an adapter with zero effect to the models in place, and make its weights the only trainable ones.

    A is drawn from `seed` alone (Kaiming uniform), B is zero, as in kohya's scripts.
    """
    layers = {name: layer.weight.shape for name, layer in adapted_layers(pipeline, config).items()}
    models = adaptable_models(pipeline)
    with torch.random.fork_rng(devices=[]):  # peft draws initial values, which are replaced below
        for part, lora in peft_configs(config, layers).items():
            models[part].add_adapter(lora)
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, parameter in lora_parameters(pipeline).items():
        initial = torch.zeros(parameter.shape, device="cpu")
        if ".lora_A." in name:
            nn.init.kaiming_uniform_(initial, a=math.sqrt(5), generator=generator)
        parameter.data = initial.to(parameter.device)


def remove_adapter(pipeline: Pipeline) -> None:
    """Take the adapter out of the models, in place, and set them to evaluation mode."""
    pipeline.unet.unload_lora()
    for encoder in text_encoders(pipeline).values():
        encoder.delete_adapter("default")
        recurse_remove_peft_layers(encoder)  # restores layers without adapters
    for model in adaptable_models(pipeline).values():
        model.eval()


def peft_configs(config: AdapterConfig, layers: Mapping[str, Sequence[int]]) -> dict[str, LoraConfig]:
    """Return peft's configuration of each model; `layers` maps names to shapes of weights or of As."""
    configs = {}
    for part in dict.fromkeys(name.partition(".")[0] for name in layers):
        shapes = {name.removeprefix(f"{part}."): shape for name, shape in layers.items() if name.startswith(f"{part}.")}
        conv3x3 = [name for name, shape in shapes.items() if kind_of(shape) == "conv3x3"]
        alpha: Any = config.network_alpha  # peft declares an integer but accepts any number
        configs[part] = LoraConfig(
            r=config.network_dim,
            lora_alpha=alpha,
            target_modules=list(shapes),
            rank_pattern=dict.fromkeys(conv3x3, config.conv_dim),
            alpha_pattern=dict.fromkeys(conv3x3, config.conv_alpha),
        )
    return configs


def adapter_parameters(pipeline: Pipeline) -> list[nn.Parameter]:
    """Return the trainable parameters, the UNet's before the text encoders', each in the order of the model."""
    return list(lora_parameters(pipeline).values())


def count_modules(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Count adapted layers and their parameters, e.g. `unet_conv3x3_modules` and `unet_conv3x3_parameters`."""
    counts: Counter[str] = Counter()
    for name, a in tensors.items():
        if name.endswith(".lora_A.weight"):
            key = f"{name.split('.')[0]}_{kind_of(a.shape)}"
            b = tensors[name.replace(".lora_A.", ".lora_B.")]
            counts.update({f"{key}_modules": 1, f"{key}_parameters": a.numel() + b.numel()})
    return dict(counts)


def adapter_tensors(pipeline: Pipeline) -> dict[str, Tensor]:
    """Return copies of the adapter's weights on the CPU, with the names that diffusers uses in files."""
    parameters = lora_parameters(pipeline)
    return {
        name: parameter.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, parameter in parameters.items()
    }


def set_adapter_tensors(pipeline: Pipeline, tensors: Mapping[str, Tensor]) -> None:
    """Load weights into models that have an adapter.

    Raises:
        InputError: a weight is missing, unknown or of another shape; the models are unchanged.
    """
    parameters = lora_parameters(pipeline)
    refuse_misfit({name: tuple(parameter.shape) for name, parameter in parameters.items()}, tensors)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def lora_parameters(pipeline: Pipeline) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters, by their names in a file."""
    return {
        f"{part}.{name.replace('.default.weight', '.weight')}": parameter
        for part, model in adaptable_models(pipeline).items()
        for name, parameter in model.named_parameters()
        if ".lora_" in name
    }
