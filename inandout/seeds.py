"""Random streams: independent sequences of random numbers from one seed.

All streams are listed here, so that two uses of a seed never draw the same numbers. Results at a fixed seed depend on
the numbers of the streams: never change a number, give a new stream a new number. Numbers may repeat across enums,
because each enum belongs to another kind of seed.
"""

from enum import IntEnum, unique

import numpy as np


@unique
class PoolStream(IntEnum):
    """Streams of the seed of a dataset or pool."""

    NEGATIVES = 0
    """Order of the good parts that anomalies are drawn on, per round."""
    MEMSEG = 1
    """Seed of each MemSeg image."""
    DIFFUSION = 2
    """Seed of each diffusion image."""
    HELD_OUT = 3
    """Seed of the held-out pools that a search validates on."""
    WINDOWS = 4
    """Place of the window of each image."""


@unique
class DreamBoothStream(IntEnum):
    """Streams of the seed of a fine-tuning."""

    INSTANCES = 0
    """Order of the instance images, per round."""
    PRIORS = 1
    """Order of the prior images, per round."""
    MASKS = 2
    """Masks of an inpainting base, per step."""


@unique
class SurfaceStream(IntEnum):
    """Streams of the seed of a procedural surface."""

    BACKGROUND = 0
    """Light, texture and wear of one surface."""
    STYLE = 1
    """Colour and pattern of a surface that belongs to no product."""
    DEFECT = 2
    """The defect, one sequence per kind."""
    PRODUCT = 3
    """Colour and pattern of a product; its seed is the product's."""


Stream = PoolStream | DreamBoothStream | SurfaceStream


def generator(seed: int, stream: Stream, *numbers: int) -> np.random.Generator:
    """Return a generator for a stream of a seed and an index in it, such as the number of a round."""
    return np.random.default_rng((seed, stream, *numbers))


def derive_seed(seed: int, stream: Stream) -> int:
    """Return another seed, 0..2^32 - 1."""
    return int(np.random.SeedSequence((seed, stream)).generate_state(1)[0])


def image_seed(seed: int, stream: Stream, number: int) -> int:
    """Return the seed of image `number` (from 0), 0..2^53 - 1, which JSON and floats represent exactly."""
    return int(np.random.SeedSequence((seed, stream, number)).generate_state(1, np.uint64)[0] >> np.uint64(11))
