"""Training images of DreamBooth, and their order in batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from torch import Tensor

from inandout.data.images import ImageArray
from inandout.diffusion.finetune.buckets import batches
from inandout.errors import InputError
from inandout.seeds import DreamBoothStream, generator


@dataclass(frozen=True)
class Example:
    """A training image."""

    latent: Tensor
    """(C, h, w), scaled for the UNet."""
    prior: bool
    """True for an image of the class prompt, which preserves the class; false for an image of the product."""
    image: ImageArray | None = None
    """The image (H, W, 3), which an inpainting base also reads with a mask; None for other bases."""
    weights: Tensor | None = None
    """(1, h, w), weights of the squared errors with mean 1, see `defect_weights`; None = 1 everywhere."""


@dataclass(frozen=True)
class DreamBoothDataset:
    """Training images, the prompts of instance and prior images, and the `clip_skip` of the text encoder."""

    examples: Sequence[Example]
    instance_prompt: str
    prior_prompt: str
    clip_skip: int = 1

    def count(self, batch: Sequence[int]) -> tuple[int, int]:
        """Return the number of (instance, prior) images in a batch of indices."""
        priors = sum(self.examples[index].prior for index in batch)
        return len(batch) - priors, priors


def make_batches(examples: Sequence[Example], epochs: int, repeats: int, batch_size: int, seed: int) -> list[list[int]]:
    """Return the batches of a training as indices into `examples`; the images of a batch have one size.

    In each epoch every instance image occurs `repeats` times. As many prior images alternate with them, taken in turn
    from an endless sequence of shuffled passes.

    Raises:
        InputError: there are no instance images.
    """
    instances = [index for index, image in enumerate(examples) if not image.prior]
    priors = [index for index, image in enumerate(examples) if image.prior]
    if not instances:
        raise InputError("there are no images to fine-tune on; give a data set with images in its training part")
    sizes = [(image.latent.shape[-1], image.latent.shape[-2]) for image in examples]
    length = len(instances) * repeats
    shown = _rounds(instances, length * epochs, seed, DreamBoothStream.INSTANCES)
    kept = _rounds(priors, length * epochs, seed, DreamBoothStream.PRIORS)
    steps = []
    for start in range(0, length * epochs, length):
        turns = zip_longest(shown[start : start + length], kept[start : start + length])
        steps += batches(sizes, [index for pair in turns for index in pair if index is not None], batch_size)
    return steps


def _rounds(indices: Sequence[int], count: int, seed: int, stream: DreamBoothStream) -> list[int]:
    """Return `count` of `indices` from repeated passes over all of them, each in a new random order."""
    if not indices:
        return []
    rounds = -(-count // len(indices))
    orders = [generator(seed, stream, number).permutation(len(indices)) for number in range(rounds)]
    return [indices[int(place)] for order in orders for place in order][:count]
