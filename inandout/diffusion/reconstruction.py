"""How much of an image survives the VAE: error, and energy of the gradients, which blurring loses first."""

from typing import NamedTuple

import numpy as np

from inandout.data.images import ImageBatch


class ReconstructionQuality(NamedTuple):
    """Reconstructions compared with their originals."""

    psnr: float
    """Peak signal-to-noise ratio in dB, mean over images."""
    worst_psnr: float
    """The same, the lowest of all images."""
    gradient_energy: float
    """Sum of squared brightness differences of neighbouring pixels, relative to the originals' (1 = all kept)."""


def measure_reconstruction(originals: ImageBatch, copies: ImageBatch) -> ReconstructionQuality:
    """Compare images (N, H, W, 3) with their reconstructions."""
    error = (originals.astype(np.float64) - copies.astype(np.float64)) / 255
    psnr = -10 * np.log10(np.maximum((error**2).mean(axis=(1, 2, 3)), 1e-10))
    return ReconstructionQuality(float(psnr.mean()), float(psnr.min()), _energy(copies) / max(_energy(originals), 1e-9))


def _energy(images: ImageBatch) -> float:
    grey = images.astype(np.float64).mean(axis=3)
    return float((np.diff(grey, axis=1) ** 2).sum() + (np.diff(grey, axis=2) ** 2).sum())
