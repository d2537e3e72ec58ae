"""A trained adapter by itself: its weights, and where they come from."""

import hashlib
import json
from dataclasses import dataclass

from diffusers import UNet2DConditionModel
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import CLIPTextModel

from inandout.diffusion.lora.layers import AdapterConfig, adapted_layers
from inandout.diffusion.lora.targets import pair_shapes, refuse_misfit
from inandout.errors import InputError


class AdapterMeta(BaseModel):
    """Where an adapter comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: AdapterConfig
    base: str = Field(pattern="^[0-9a-f]{32}$", description="fingerprint of the base it was trained on")
    instance_prompt: str = Field(description="what stands for the images it was trained on; empty = not known")
    prior_prompt: str = Field(description="what stands for images of the class; empty = none or not known")
    clip_skip: int = Field(
        ge=1, description="layer of the text encoder, counted from the last, that the UNet was shown"
    )
    sources: tuple[str, ...] = Field(description="digests of the training images' files; none = not known")
    code: str = Field(description="fingerprint of the code that trained it; empty = it was trained elsewhere")
    commit: str = Field("", description="git commit of that code; empty = not known")
    seed: int
    shot: str = Field("", description="zero (good images were learned), few, full (defects); empty = not known")


@dataclass(frozen=True, eq=False)
class Adapter:
    """What was trained: `<layer>.lora_A.weight` and `<layer>.lora_B.weight` of every layer, fp32 on the CPU."""

    tensors: dict[str, Tensor]
    meta: AdapterMeta

    @property
    def fingerprint(self) -> str:
        """Identity of what it does to an image: of names, shapes and values, configuration and base."""
        whole = hashlib.sha256(f"{self.meta.config.model_dump_json()}{self.meta.base}{self.meta.clip_skip}".encode())
        for name, tensor in sorted(self.tensors.items()):
            whole.update(json.dumps([name, list(tensor.shape)]).encode())
            whole.update(tensor.float().numpy().tobytes())
        return whole.hexdigest()[:32]


def check_adapter(
    base_fingerprint: str, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, adapter: Adapter
) -> None:  # fmt: skip
    """Raise an InputError if an adapter was trained on another base, or does not fit these plain models."""
    if adapter.meta.base != base_fingerprint:
        raise InputError(
            f"the adapter was trained on base {adapter.meta.base}, this is {base_fingerprint}: "
            "open the base it was trained on, or give an adapter of this one"
        )
    expected = {}
    for name, layer in adapted_layers(unet, text_encoder, adapter.meta.config).items():
        dim, _ = adapter.meta.config.dim_and_alpha(layer.weight.shape)
        expected[f"{name}.lora_A.weight"], expected[f"{name}.lora_B.weight"] = pair_shapes(layer.weight.shape, dim)
    refuse_misfit(expected, adapter.tensors)
