"""Random streams: every independent sequence of random numbers that is drawn from one seed.

A stream is named here and nowhere else, so two uses of a seed cannot draw the same numbers by accident. The numbers of
the streams are part of every result at a fixed seed: never change one, give a new stream a new number. Two groups may
hold equal numbers: one draws images, another the order of a training or a surface.
"""

from enum import IntEnum, unique

import numpy as np


@unique
class PoolStream(IntEnum):
    """Of the seed of a data set or a pool."""

    NEGATIVES = 0
    """Order of the good parts that anomalies are drawn on, one a round."""
    MEMSEG = 1
    """Seed of each MemSeg image."""
    DIFFUSION = 2
    """Seed of each diffusion image."""
    HELD_OUT = 3
    """Seed of the held-out pools that a search validates on."""


@unique
class DreamBoothStream(IntEnum):
    """Of the seed of a fine-tuning."""

    INSTANCES = 0
    """Order of the images of the product, one a round."""
    PRIORS = 1
    """Order of the images of the class prompt, one a round."""


@unique
class SurfaceStream(IntEnum):
    """Of the seed of a procedural surface."""

    BACKGROUND = 0
    """Light, texture and wear of one surface."""
    STYLE = 1
    """Colour and pattern of a surface that belongs to no product."""
    DEFECT = 2
    """The defect, one sequence a kind."""
    PRODUCT = 3
    """Colour and pattern of a product; its seed is the product's."""


Stream = PoolStream | DreamBoothStream | SurfaceStream


def generator(seed: int, stream: Stream, *numbers: int) -> np.random.Generator:
    """A generator of its own for a stream of a seed, and for a place in it, such as the number of a round."""
    return np.random.default_rng((seed, stream, *numbers))


def derive_seed(seed: int, stream: Stream) -> int:
    """Another seed of 0..2^32 - 1, as the `seed` of a configuration."""
    return int(np.random.SeedSequence((seed, stream)).generate_state(1)[0])


def image_seed(seed: int, stream: Stream, number: int) -> int:
    """Seed of image `number`, from 0: 0..2^53 - 1, which JSON and floating point hold exactly."""
    return int(np.random.SeedSequence((seed, stream, number)).generate_state(1, np.uint64)[0] >> np.uint64(11))
