"""Diffusion: opening a Stable Diffusion, fine-tuning it, sampling from it, and pretraining the embedded one.

`base` opens a base model: the embedded one, a folder, a single file, or a pinned revision on the hub. `lora` holds
LoRA-C3Lier adapters, their files, and merging. `finetune` trains an adapter by DreamBooth. `sample` draws images, whole
or inside a mask, and filters them. `pretrain` trains the embedded base, `surface-diffusion`.

Beside the folders is what several of them use: `prompts`, `vae`, `snr_weighting`, `lr_schedules`, `callbacks` and
`reconstruction`.
"""
