"""Detect and reject base models that are inpainting models."""

from diffusers import StableDiffusionPipeline

from inandout.errors import InputError


def is_inpainting(pipeline: StableDiffusionPipeline) -> bool:
    """Return whether the base is an inpainting model, which needs a canvas to draw on."""
    unet = pipeline.unet.config
    return bool(unet.in_channels == 2 * unet.out_channels + 1)


def require_text2img(pipeline: StableDiffusionPipeline) -> None:
    """Raise an InputError for inpainting models, which can neither generate whole images nor be trained."""
    if is_inpainting(pipeline):
        raise InputError(
            "this base is an inpainting model, which cannot generate whole images or be trained; give the ordinary "
            "model, or inpaint good parts with augment source=inpaint adapter=none (for classify: ddpm_pool)"
        )
