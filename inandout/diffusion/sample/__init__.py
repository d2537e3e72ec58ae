"""Generate images from a base: sampling, inpainting, and filtering."""
