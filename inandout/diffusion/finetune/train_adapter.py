"""From images to a trained adapter, in one call."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from inandout.data.images import ImageArray, Mask
from inandout.data.manifest import digests
from inandout.diffusion.base.base import Base
from inandout.diffusion.callbacks import OnStep
from inandout.diffusion.finetune.config import DreamBoothConfig
from inandout.diffusion.finetune.defect_weights import check_masks, defect_weights
from inandout.diffusion.finetune.dreambooth import dreambooth
from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, Example
from inandout.diffusion.lora.adapter import Adapter, AdapterMeta
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import add_adapter, remove_adapter
from inandout.diffusion.pipeline import is_inpainting
from inandout.diffusion.vae import encode
from inandout.fingerprints import code_fingerprint

PAPER_ADAPTER = AdapterConfig()
"""Ranks and alphas of the paper."""


def encode_each(base: Base, images: Sequence[ImageArray]) -> list[Tensor]:
    """Return latents (C, h, w), on the CPU, of images (H, W, 3)."""
    return [encode(base.pipeline.vae, image[None])[0].cpu() for image in images]


def train_adapter(
    base: Base,
    images: Sequence[ImageArray],
    *,
    epochs: int,
    lr: float,
    config: DreamBoothConfig,
    seed: int,
    adapter: AdapterConfig = PAPER_ADAPTER,
    masks: Sequence[Mask | None] = (),
    instance_prompt: str = "skt background",
    prior_images: Sequence[ImageArray] = (),
    prior_prompt: str = "background",
    clip_skip: int = 1,
    sources: Sequence[Path] = (),
    shot: str = "",
    code: str = "",
    commit: str = "",
    encoder: Callable[[Base, Sequence[ImageArray]], list[Tensor]] = encode_each,
    checkpoint: Path | None = None,
    on_step: OnStep = lambda step, values: None,
) -> Adapter:
    """Train a LoRA-C3Lier adapter by DreamBooth.

    The base has no adapter before and after, and its weights stay as they are. Its device and precision are those of
    the training. An inpainting base is trained to fill random masks.

    Args:
        base: the base model.
        images: (H, W, 3) uint8 images of the product; both sides are multiples of the VAE's factor.
        epochs: see `dreambooth`.
        lr: highest learning rate.
        config: of the training.
        seed: initial weights, order, noise, timesteps.
        adapter: ranks and alphas.
        masks: (H, W), the defects of `images`, for `config.mask_weight`; None = not known; () = none is known.
        instance_prompt: stands for `images`.
        prior_images: images of the class prompt, for prior preservation; () = none.
        prior_prompt: stands for `prior_images`.
        clip_skip: layer of the text encoder, counted from the last.
        sources: files that `images` come from. The adapter records their digests, which `mix` needs.
        shot: zero, few, full, or "" = not known; recorded in the adapter.
        code: fingerprint of the code that calls this, recorded in the adapter; "" = of this module.
        commit: git commit, recorded in the adapter.
        encoder: gives the latents (C, h, w) of images, on the CPU.
        checkpoint: see `dreambooth`.
        on_step: see `dreambooth`.

    Raises:
        NonFiniteLossError: the loss or its gradient is not finite.
        InputError: a checkpoint of another adapter; no images; `config.mask_weight` without a mask.
    """
    check_masks(masks, config.mask_weight)
    factor, masked = base.pipeline.vae_scale_factor, is_inpainting(base.pipeline)
    masks = masks or [None] * len(images)
    examples = [
        Example(latent, prior, image if masked else None, defect_weights(mask, factor, config.mask_weight))
        for shown, defects, prior in ((images, masks, False), (prior_images, [None] * len(prior_images), True))
        for image, mask, latent in zip(shown, defects, encoder(base, shown), strict=True)
    ]
    dataset = DreamBoothDataset(examples, instance_prompt, prior_prompt, clip_skip)
    add_adapter(base.pipeline, adapter, seed)
    try:
        tensors = dreambooth(
            base, dataset, epochs=epochs, lr=lr, config=config, seed=seed, checkpoint=checkpoint, on_step=on_step
        )
    finally:
        remove_adapter(base.pipeline)
    meta = AdapterMeta(
        config=adapter, base=base.fingerprint,
        instance_prompt=instance_prompt, prior_prompt=prior_prompt if prior_images else "",
        clip_skip=clip_skip, sources=tuple(digests(sources)),
        code=code or code_fingerprint(__name__), commit=commit, seed=seed, shot=shot,
    )  # fmt: skip
    return Adapter(tensors, meta)
