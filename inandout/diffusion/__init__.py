"""Diffusion: open, fine-tune and sample a Stable Diffusion, and pretrain the embedded one.

`base` opens a base model: the embedded one, a folder, a single file, or a pinned revision on the hub. `lora` holds
LoRA-C3Lier adapters, their files, and merging. `finetune` trains an adapter by DreamBooth. `sample` generates whole
images or inpaints inside a mask, and filters the result. `pretrain` trains the embedded base, `surface-diffusion`.

The modules beside the folders are shared: `pipeline`, `prompts`, `vae`, `snr_weighting`, `lr_schedules`, `callbacks`
and `reconstruction`.
"""
