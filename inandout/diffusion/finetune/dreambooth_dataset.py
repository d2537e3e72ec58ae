"""What DreamBooth learns from, and in which order."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from torch import Tensor

from inandout.diffusion.finetune.buckets import batches
from inandout.errors import InputError
from inandout.seeds import DreamBoothStream, generator


@dataclass(frozen=True)
class Example:
    """An image that is learned from."""

    latent: Tensor
    """(C, h, w), scaled for the UNet."""
    prior: bool
    """Whether it is one of the class prompt, which keeps the class from drifting; else it is one of the product."""


@dataclass(frozen=True)
class DreamBoothDataset:
    """Images, their two prompts, and how the text encoder is read."""

    examples: Sequence[Example]
    instance_prompt: str
    prior_prompt: str
    clip_skip: int = 1

    def count(self, batch: Sequence[int]) -> tuple[int, int]:
        """Number of (instance, prior) images of a batch of indices."""
        priors = sum(self.examples[index].prior for index in batch)
        return len(batch) - priors, priors


def make_batches(examples: Sequence[Example], epochs: int, repeats: int, batch_size: int, seed: int) -> list[list[int]]:
    """The batches of a training, as indices into `examples`; all of a batch have one size.

    An epoch shows every instance image `repeats` times and as many prior images, the next of an endless round, so
    that both take turns.

    Raises:
        InputError: no instance images.
    """
    instances = [index for index, image in enumerate(examples) if not image.prior]
    priors = [index for index, image in enumerate(examples) if image.prior]
    if not instances:
        raise InputError("there are no images to fine-tune on; give a data set whose training part has some")
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
    """`count` of `indices`, going round and round, every round in an order of its own."""
    if not indices:
        return []
    rounds = -(-count // len(indices))
    orders = [generator(seed, stream, number).permutation(len(indices)) for number in range(rounds)]
    return [indices[int(place)] for order in orders for place in order][:count]
