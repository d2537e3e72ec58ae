"""Batches of DreamBooth as tensors: latents, noise, timesteps, and the masks of an inpainting base."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, Example
from inandout.diffusion.finetune.random_masks import random_mask
from inandout.diffusion.pipeline import Pipeline, is_inpainting
from inandout.diffusion.snr_weighting import draw_times
from inandout.diffusion.vae import encode_masked
from inandout.seeds import DreamBoothStream, generator


class Batch(NamedTuple):
    """One process' share of a batch, on its device."""

    latents: Tensor
    """(N, C, h, w)."""
    noise: Tensor
    """(N, C, h, w)."""
    times: Tensor
    """(N,) timesteps."""
    prior: Tensor
    """(N,), 1 for images of the class prompt, else 0."""
    valid: Tensor
    """(N,), 0 for images that pad the share, else 1."""
    masked: Tensor | None
    """(N, 1 + C, h, w), see `encode_masked`; None unless the base is an inpainting model."""
    weights: Tensor | None
    """(N, 1, h, w), weights of the squared errors with mean 1 for each image; None if all are 1."""

    def part(self, start: int, stop: int) -> "Batch":
        """Return the images from `start` to `stop`."""
        return Batch._make(value if value is None else value[start:stop] for value in self)


def load_batch(
    pipeline: Pipeline, dataset: DreamBoothDataset, batch: Sequence[int], step: int, seed: int, accelerator: Accelerator
) -> Batch:
    """Return this process' share of a batch; noise, timesteps and masks depend on seed and step alone.

    Args:
        pipeline: the base.
        dataset: training images.
        batch: indices of images of one size.
        step: number of the step.
        seed: seed of the training.
        accelerator: determines share and device.
    """
    examples = [dataset.examples[index] for index in batch]
    random = torch.Generator().manual_seed((seed << 20) + step)
    latents = torch.stack([example.latent for example in examples])
    noise = torch.randn(latents.shape, generator=random)
    times = draw_times(len(batch), pipeline.scheduler.config.num_train_timesteps, random)
    share = _share(len(batch), accelerator)
    indices = [position % len(batch) for position in share]
    valid = torch.tensor([float(position < len(batch)) for position in share])
    prior = torch.tensor([float(examples[index].prior) for index in indices])
    moved = [tensor[indices].to(accelerator.device) for tensor in (latents, noise, times)]
    masked = _masked(pipeline, examples, indices, step, seed) if is_inpainting(pipeline) else None
    weights = _weights(examples)
    weights = None if weights is None else weights[indices].to(accelerator.device)
    return Batch(moved[0], moved[1], moved[2], prior, valid, masked, weights)


def _share(count: int, accelerator: Accelerator) -> range:
    """Return this process' positions in a batch: the same number for every process, so some may lie beyond the end."""
    each = -(-count // accelerator.num_processes)
    return range(accelerator.process_index * each, (accelerator.process_index + 1) * each)


def _weights(examples: Sequence[Example]) -> Tensor | None:
    """Return the weights (N, 1, h, w) of a batch, or None if all are 1."""
    if all(example.weights is None for example in examples):
        return None
    ones = torch.ones(1, *examples[0].latent.shape[1:])
    return torch.stack([ones if example.weights is None else example.weights for example in examples])


def _masked(
    pipeline: Pipeline, examples: Sequence[Example], indices: Sequence[int], step: int, seed: int
) -> Tensor:  # fmt: skip
    """Return mask and masked latents of a share of a batch, encoded image by image.

    Masks are drawn for the whole batch, so they do not depend on the number of processes.
    """
    rng = generator(seed, DreamBoothStream.MASKS, step)
    images = [example.image for example in examples if example.image is not None]
    masks = [random_mask(image.shape[1], image.shape[0], rng) for image in images]
    return torch.cat([encode_masked(pipeline.vae, images[i][None], masks[i][None]) for i in indices])
