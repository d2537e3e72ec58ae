"""The diffusion half: a Stable Diffusion of our own, fine-tuning any, and images from it.

The embedded base: `captions` and `words` say in text what was drawn, `stream` draws for ever, `latents` and
`autoencoder` make the VAE, `networks` the text encoder and the UNet, `pretrain_vae` and `pretrain_unet` train them,
`embedded` joins all to a folder in diffusers' format.

Any base: `base` opens the embedded one, a `folder`, a `single_file` or a pinned revision on the `hub`; `prompts` reads
prompts, `loss` says what a UNet is asked for.

Fine-tuning: `targets` and `adapter` put LoRA-C3Lier into a base, `buckets` and `dataset` order the images,
`dreambooth` trains with the values of `profiles`; `trained`, `adapter_file`, `kohya` and `kohya_file` keep what was
learned.

Images: `merge` adds an adapter to a copy of its base, `sampling` draws, `gate` says what is of no use, `fill` and
`pool` draw until there are enough.
"""
