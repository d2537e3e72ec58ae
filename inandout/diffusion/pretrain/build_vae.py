"""Build the VAE: diffusers' `AutoencoderTiny` with a linear encoder in closed form and a trained decoder.

`AutoencoderTiny` is suitable because its strided convolution covers every pixel of a 2x2 patch, so it can represent any
linear map of a patch exactly, and because it has no norms, which would suppress small contrasts. Its decoder upsamples
by repeating pixels. The following convolutions distinguish the copies only by their neighbours, so the decoder cannot
generate patterns with the period of a patch. For 2x2 px patches this is the Nyquist frequency, where surfaces have no
energy; for 4x4 px patches it would be stripes with a period of 4 px, which many materials have.
"""

import torch
from diffusers import AutoencoderTiny

from inandout.diffusion.pretrain.pca_latents import Components

SCALING = 8.0
"""The VAE's `scaling_factor`: the encoder's output is the latent divided by it, so that the decoder's tanh(x / 3) * 3
is nearly the identity."""

_ENCODER_WIDTH, _DECODER_WIDTH, _DECODER_BLOCKS = 8, 48, (2, 1)


def build_vae(
    components: Components, seed: int, width: int = _DECODER_WIDTH, blocks: tuple[int, int] = _DECODER_BLOCKS
) -> AutoencoderTiny:
    """Return a VAE whose frozen encoder is `components` and whose decoder depends on `seed` alone.

    Args:
        components: at most 16 components.
        seed: seed of the decoder's random weights.
        width: channels of the decoder.
        blocks: residual blocks of the decoder before and after it doubles the sides.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderTiny(
            encoder_block_out_channels=(_ENCODER_WIDTH,) * 2, num_encoder_blocks=(0, 0),
            decoder_block_out_channels=(width,) * len(blocks), num_decoder_blocks=blocks,
            latent_channels=len(components.spread), scaling_factor=SCALING,
        )  # fmt: skip
    _set_encoder(vae, components)
    with torch.no_grad():
        vae.decoder.layers[0].weight.mul_(SCALING)  # restores the input scale assumed by the initialisation
    vae.encoder.requires_grad_(False)
    return vae


@torch.no_grad()
def _set_encoder(vae: AutoencoderTiny, components: Components) -> None:
    """Write the linear map into the convolutions of an encoder without residual blocks."""
    enter, halve, leave = vae.encoder.layers
    for layer in (enter, halve, leave):
        layer.weight.zero_()
    enter.bias.zero_()
    for colour in range(3):
        enter.weight[colour, colour, 1, 1] = 1
    count = len(components.spread)
    gain = components.target / components.spread / SCALING
    scaled = torch.from_numpy(components.basis * gain[:, None, None, None]).float()
    halve.weight[:count, :3, 1:, 1:] = scaled.permute(0, 3, 1, 2)
    leave.weight[:, :count, 1, 1] = torch.eye(count)
    leave.bias.copy_(-(scaled * torch.from_numpy(components.mean).float()).sum(dim=(1, 2, 3)))
