"""`surface-diffusion`: a small Stable Diffusion of procedural surfaces, in diffusers' own classes.

`captions` and `words` say in text what was drawn, `school` draws for ever, `latents` and `autoencoder` make the VAE,
`networks` the text encoder and the UNet, `pretrain_vae` and `pretrain_unet` train them, `base` joins all to a folder
that `StableDiffusionPipeline.from_pretrained` loads.
"""
