"""Reconstruction quality of a VAE: PSNR, and gradient energy, which blurring reduces first."""

from typing import NamedTuple

import numpy as np

from inandout.data.images import ImageBatch


class ReconstructionQuality(NamedTuple):
    """Quality of reconstructions compared with their originals."""

    psnr: float
    """Peak signal-to-noise ratio in dB, mean over images."""
    worst_psnr: float
    """PSNR in dB of the worst image."""
    gradient_energy: float
    """Sum of squared brightness differences of neighbouring pixels, relative to the originals (1 = preserved)."""


def measure_reconstruction(originals: ImageBatch, reconstructions: ImageBatch) -> ReconstructionQuality:
    """Compare images (N, H, W, 3) with their reconstructions."""
    error = (originals.astype(np.float64) - reconstructions.astype(np.float64)) / 255
    psnr = -10 * np.log10(np.maximum((error**2).mean(axis=(1, 2, 3)), 1e-10))
    energy = _gradient_energy(reconstructions) / max(_gradient_energy(originals), 1e-9)
    return ReconstructionQuality(float(psnr.mean()), float(psnr.min()), energy)


def _gradient_energy(images: ImageBatch) -> float:
    grey = images.astype(np.float64).mean(axis=3)
    return float((np.diff(grey, axis=1) ** 2).sum() + (np.diff(grey, axis=2) ** 2).sum())
