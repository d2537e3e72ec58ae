"""Latents in closed form: the principal components of 2x2 px patches of surfaces.

Procedural surfaces and the magnetic tiles have little energy near the Nyquist frequency, so that 5 of the 12 numbers
of a patch (brightness, its two slopes, two of colour) keep 45 dB and 90 % of the gradient energy: a linear encoder
does what small trained ones with norms did not. Its latents are known before any training, are decorrelated, and cost
nothing to compute, so UNet and decoder can be trained in any order.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inandout.data.surfaces import KINDS, draw_surface

FACTOR = 2
"""Side of a patch in px: a latent has half the width and half the height of the image."""

CHANNELS = 5
"""Components that are kept: brightness, two of colour, and the slopes of brightness in both directions."""

FLATTENING = 1 / 3
"""Standard deviation of a latent channel, as a power of that of its component.

1 would keep the proportions of the pixels (the first component 12 times the last), 0 would make fine grain as heavy
in the loss as brightness. A cube root leaves 1.5 to 0.65: the coarse is decided first, at high noise.
"""


class Components(NamedTuple):
    """A linear map between a patch and its latent."""

    mean: npt.NDArray[np.float64]
    """(3,): mean red, green and blue in 0..1."""
    basis: npt.NDArray[np.float64]
    """(C, 2, 2, 3): orthonormal patches; the first has the largest spread."""
    spread: npt.NDArray[np.float64]
    """(C,): standard deviation of the components."""
    target: npt.NDArray[np.float64]
    """(C,): standard deviation that the latent channels are given; the mean of their squares is 1."""


def surface_components(images: int = 2100, channels: int = CHANNELS, seed: int = 0) -> Components:
    """Principal components of the patches of surfaces of 64x64 px, every kind of defect and none in equal shares."""
    kinds = ("", *KINDS)
    drawn = [draw_surface(64, 64, (seed << 32) + i, kinds[i % len(kinds)]).image for i in range(images)]
    return principal_components(np.stack(drawn), channels)


def principal_components(images: npt.NDArray[np.uint8], channels: int = CHANNELS) -> Components:
    """Principal components of the 2x2 patches of images (N, H, W, 3), H and W divisible by 2.

    The sign of a component is such that its largest entry is positive, so that every machine finds the same.
    """
    flat = _patches(images).reshape(-1, FACTOR * FACTOR * 3)
    mean = flat.reshape(-1, 3).mean(axis=0)
    centred = flat - np.tile(mean, FACTOR * FACTOR)
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    order = np.argsort(variances)[::-1][:channels]
    basis, spread = vectors[:, order].T, np.sqrt(variances[order])
    basis *= np.sign(np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, None], axis=1))
    target = spread**FLATTENING
    target /= np.sqrt((target**2).mean())
    return Components(mean, basis.reshape(-1, FACTOR, FACTOR, 3), spread, target)


def _patches(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(N, H, W, 3) in 0..255 to (N, H/2, W/2, 2, 2, 3) in 0..1."""
    count, height, width, _ = images.shape
    split = images.reshape(count, height // FACTOR, FACTOR, width // FACTOR, FACTOR, 3)
    return split.transpose(0, 1, 3, 2, 4, 5) / 255.0
