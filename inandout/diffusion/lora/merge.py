"""Merge an adapter into its base.

`alpha` is the paper's merging weight (section 3): a weight becomes W + alpha * (network_alpha / network_dim) * B A,
with conv_alpha and conv_dim in 3x3 convolutions. It is unrelated to `network_alpha`.
"""

from torch import Tensor

from inandout.diffusion.lora.adapter import Adapter, check_adapter
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import adapted_layers
from inandout.diffusion.pipeline import Pipeline, hardware_of, rebuild
from inandout.errors import InputError
from inandout.hardware import Hardware


def merge(
    pipeline: Pipeline, base_fingerprint: str, adapter: Adapter, alpha: float, hardware: Hardware | None = None
) -> Pipeline:  # fmt: skip
    """Return a new pipeline with `alpha` times the adapter added to the weights; 0 gives the base bit for bit.

    Each weight is added in fp32 and rounded once. Give a pipeline in fp32, since 16-bit weights were rounded before; it
    may be on the CPU. The given pipeline is not changed; unchanged tensors are shared with it.

    Args:
        pipeline: the base.
        base_fingerprint: fingerprint of the base.
        adapter: of this base.
        alpha: 0..1.
        hardware: device and precision of the new pipeline; None = those of the base.

    Raises:
        InputError: `alpha` is outside 0..1, or the adapter was trained on another base or does not fit.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha = {alpha} must be in 0..1; 0 gives the base model, 1 the full adapter")
    check_adapter(base_fingerprint, pipeline, adapter)
    config = adapter.meta.config
    adapted = {f"{name}.weight" for name in adapted_layers(pipeline, config)} if alpha else set()  # -0 + 0 = 0

    def add(name: str, weight: Tensor) -> Tensor:
        if name not in adapted:
            return weight
        layer = name.removesuffix(".weight")
        a, b = (adapter.tensors[f"{layer}.lora_{letter}.weight"].to(weight.device) for letter in "AB")
        return weight.float() + alpha * lora_delta(config, a, b)

    return rebuild(pipeline, hardware or hardware_of(pipeline), add)


def lora_delta(config: AdapterConfig, a: Tensor, b: Tensor) -> Tensor:
    """Return the change (out, in, ...) of a layer's weight in fp32, from `a` (dim, in, ...) and `b` (out, dim, ...)."""
    dim, layer_alpha = config.dim_and_alpha(a.shape)
    product = b.float().flatten(1) @ a.float().flatten(1)
    return (layer_alpha / dim) * product.view(len(b), *a.shape[1:])
