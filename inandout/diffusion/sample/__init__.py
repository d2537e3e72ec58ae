"""Images from a base: sampling, inpainting, and filtering what is drawn."""
