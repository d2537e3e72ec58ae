"""A trained adapter: its weights and their provenance."""

import hashlib
import json
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import adapted_layers
from inandout.diffusion.lora.targets import pair_shapes, refuse_misfit
from inandout.diffusion.pipeline import Pipeline
from inandout.errors import InputError


class AdapterMeta(BaseModel):
    """Configuration and provenance of an adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: AdapterConfig
    base: str = Field(pattern="^[0-9a-f]{32}$", description="fingerprint of the base the adapter was trained on")
    instance_prompt: str = Field(description="prompt of the training images; empty = unknown")
    prior_prompt: str = Field(description="prompt of the class images; empty = none or unknown")
    clip_skip: int = Field(ge=1, description="text-encoder layer whose output the UNet reads, counted from the last")
    sources: tuple[str, ...] = Field(description="digests of the training image files; empty = unknown")
    code: str = Field(description="fingerprint of the training code; empty = trained by another program")
    commit: str = Field("", description="git commit of the training code; empty = unknown")
    seed: int
    shot: str = Field("", description="training data: zero (good images), few or full (defects); empty = unknown")

    def class_prompt(self) -> str:
        """Return the prompt of the class; if unknown, the instance prompt without its first word, the identifier."""
        return self.prior_prompt or self.instance_prompt.partition(" ")[2]


@dataclass(frozen=True, eq=False)
class Adapter:
    """Weights `<layer>.lora_A.weight` and `<layer>.lora_B.weight` of every adapted layer, fp32 on the CPU."""

    tensors: dict[str, Tensor]
    meta: AdapterMeta

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that identify configuration, base, clip_skip, and names, shapes and values of
        weights.
        """
        digest = hashlib.sha256(f"{self.meta.config.model_dump_json()}{self.meta.base}{self.meta.clip_skip}".encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(json.dumps([name, list(tensor.shape)]).encode())
            digest.update(tensor.float().numpy().tobytes())
        return digest.hexdigest()[:32]


def check_adapter(base_fingerprint: str, pipeline: Pipeline, adapter: Adapter) -> None:
    """Raise an InputError if the adapter was trained on another base or does not fit this pipeline without adapter."""
    if adapter.meta.base != base_fingerprint:
        raise InputError(
            f"the adapter was trained on base {adapter.meta.base}, but this base is {base_fingerprint}; "
            "open the base of the adapter, or give an adapter of this base"
        )
    expected = {}
    for name, layer in adapted_layers(pipeline, adapter.meta.config).items():
        dim, _ = adapter.meta.config.dim_and_alpha(layer.weight.shape)
        expected[f"{name}.lora_A.weight"], expected[f"{name}.lora_B.weight"] = pair_shapes(layer.weight.shape, dim)
    refuse_misfit(expected, adapter.tensors)
