"""Bases that are inpainting models: which are, and where they cannot be used."""

from diffusers import StableDiffusionPipeline

from inandout.errors import InputError


def is_inpainting(pipeline: StableDiffusionPipeline) -> bool:
    """Whether the base is made for inpainting, and so draws nothing without a canvas."""
    unet = pipeline.unet.config
    return bool(unet.in_channels == 2 * unet.out_channels + 1)


def require_text2img(pipeline: StableDiffusionPipeline) -> None:
    """Raise an InputError if a base that is to draw whole images, or to learn them, is made for inpainting."""
    if is_inpainting(pipeline):
        raise InputError(
            "this base is made for inpainting: it draws no whole images and cannot be trained, so give the plain "
            "one, or draw on good parts with augment source=inpaint adapter=none (classify takes that as ddpm_pool)"
        )
