"""Latents in closed form: principal components of the 2x2 px patches of surfaces.

Procedural surfaces and the magnetic tiles have little energy near the Nyquist frequency, so 5 of the 12 components of a
patch (brightness, its two slopes, two of colour) preserve 45 dB and 90 % of the gradient energy; small trained encoders
with norms did not. The latents are known before any training, decorrelated and cheap to compute, so UNet and decoder
can be trained in any order.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inandout.data.surfaces import KINDS, draw_surface

FACTOR = 2
"""Side of a patch in px: latents have half the width and height of the image."""

CHANNELS = 5
"""Number of components: brightness, two of colour, and the slopes of brightness in both directions."""

FLATTENING = 1 / 3
"""Exponent that maps the standard deviation of a component to that of its latent channel.

1 would keep the proportions of the pixels (the first component 12 times the last); 0 would weight fine grain like
brightness in the loss. The cube root gives 1.5 to 0.65: coarse structure is decided first, at high noise."""


class Components(NamedTuple):
    """A linear map between patches and latents."""

    mean: npt.NDArray[np.float64]
    """(3,): mean red, green and blue in 0..1."""
    basis: npt.NDArray[np.float64]
    """(C, 2, 2, 3): orthonormal patches, in order of decreasing spread."""
    spread: npt.NDArray[np.float64]
    """(C,): standard deviation of the components."""
    target: npt.NDArray[np.float64]
    """(C,): standard deviation of the latent channels; the mean of the squares is 1."""


def surface_components(images: int = 2100, channels: int = CHANNELS, seed: int = 0) -> Components:
    """Return the principal components of surfaces of 64x64 px, with all kinds of defects and none in equal shares."""
    kinds = ("", *KINDS)
    surfaces = [draw_surface(64, 64, (seed << 32) + i, kinds[i % len(kinds)]).image for i in range(images)]
    return principal_components(np.stack(surfaces), channels)


def principal_components(images: npt.NDArray[np.uint8], channels: int = CHANNELS) -> Components:
    """Return the principal components of the 2x2 patches of images (N, H, W, 3), H and W divisible by 2.

    The largest entry of a component is positive, so the result is the same on every machine.
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
    """Convert (N, H, W, 3) in 0..255 to (N, H/2, W/2, 2, 2, 3) in 0..1."""
    count, height, width, _ = images.shape
    split = images.reshape(count, height // FACTOR, FACTOR, width // FACTOR, FACTOR, 3)
    return split.transpose(0, 1, 3, 2, 4, 5) / 255.0
