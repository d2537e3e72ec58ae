"""Latents in closed form: the principal components of 4x4 px patches of surfaces.

Procedural surfaces and the magnetic tiles have little energy near the Nyquist frequency, so that 14 of the 48 numbers
of a patch keep 93 % of the gradient energy of the tiles (12 keep 77 %, 16 keep 95 %): a linear encoder does what small
trained ones with norms did not. Its latents are known before any training, are decorrelated, and need no encoder run
that costs anything, so UNet and decoder can be trained in any order.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inandout.data.surfaces import KINDS, draw_surface

FACTOR = 2
"""Side of a patch in px: a latent has a quarter of the width and of the height of the picture."""

CHANNELS = 5
"""Components that are kept; 12 of them turn out to be brightness and 2 colour."""

FLATTENING = 1 / 3
"""Standard deviation of a latent channel, as a power of that of its component.

1 would keep the proportions of the pixels (the first component 40 times the last), 0 would make fine grain as heavy
in the loss as brightness. A cube root leaves 1.9 to 0.6: the coarse is decided first, at high noise.
"""


class Components(NamedTuple):
    """A linear map between a patch and its latent."""

    mean: npt.NDArray[np.float64]
    """(3,): mean red, green and blue in 0..1."""
    basis: npt.NDArray[np.float64]
    """(C, 4, 4, 3): orthonormal patches; the first has the largest spread."""
    spread: npt.NDArray[np.float64]
    """(C,): standard deviation of the components."""
    target: npt.NDArray[np.float64]
    """(C,): standard deviation that the latent channels are given; the mean of their squares is 1."""


def surface_components(pictures: int = 2100, channels: int = CHANNELS, seed: int = 0) -> Components:
    """Principal components of the patches of surfaces of 64x64 px, every kind of defect and none in equal shares."""
    kinds = ("", *KINDS)
    drawn = [draw_surface(64, 64, (seed << 32) + i, kinds[i % len(kinds)]).picture for i in range(pictures)]
    return principal_components(np.stack(drawn), channels)


def principal_components(pictures: npt.NDArray[np.uint8], channels: int = CHANNELS) -> Components:
    """Principal components of the 4x4 patches of pictures (N, H, W, 3), H and W divisible by 4.

    The sign of a component is such that its largest entry is positive, so that every machine finds the same.
    """
    flat = _patches(pictures).reshape(-1, FACTOR * FACTOR * 3)
    mean = flat.reshape(-1, 3).mean(axis=0)
    centred = flat - np.tile(mean, FACTOR * FACTOR)
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    order = np.argsort(variances)[::-1][:channels]
    basis, spread = vectors[:, order].T, np.sqrt(variances[order])
    basis *= np.sign(np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, None], axis=1))
    target = spread**FLATTENING
    target /= np.sqrt((target**2).mean())
    return Components(mean, basis.reshape(-1, FACTOR, FACTOR, 3), spread, target)


def _patches(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(N, H, W, 3) in 0..255 to (N, H/4, W/4, 4, 4, 3) in 0..1."""
    count, height, width, _ = pictures.shape
    split = pictures.reshape(count, height // FACTOR, FACTOR, width // FACTOR, FACTOR, 3)
    return split.transpose(0, 1, 3, 2, 4, 5) / 255.0
