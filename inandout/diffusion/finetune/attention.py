"""Attention (Vaswani et al. 2017) as Stable Diffusion has it, and no more.

Diffusers' looks up at every call what its processor can take, and divides by a factor that is 1: about one and a half
per cent of a step of the embedded base.
"""

from collections.abc import Callable

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor
from torch.nn import functional as nf


def attention(layer: Attention) -> Callable[..., Tensor] | None:
    """Of x (N, tokens, channels) to itself or to the text (N, text tokens, text channels); None for a layer that has
    more than projections. For evaluation mode: dropout is left out."""
    more = layer.spatial_norm, layer.group_norm, layer.norm_cross, layer.norm_q, layer.norm_k, layer.residual_connection
    if any(more) or layer.rescale_output_factor != 1 or type(layer.processor) is not AttnProcessor2_0:
        return None

    def forward(x: Tensor, encoder_hidden_states: Tensor | None = None, attention_mask: Tensor | None = None) -> Tensor:
        if attention_mask is not None:
            return Attention.forward(layer, x, encoder_hidden_states, attention_mask)
        source = x if encoder_hidden_states is None else encoder_hidden_states
        projected = layer.to_q(x), layer.to_k(source), layer.to_v(source)
        query, key, value = (tokens.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for tokens in projected)
        y = nf.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return layer.to_out[0](y)

    return forward
