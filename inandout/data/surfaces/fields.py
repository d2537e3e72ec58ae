"""Random fields: smooth, streaky, banded and cloudy noise, filtered in the frequency domain.

Fields are (H, W) float32 with mean 0 and standard deviation 1. The filters suppress frequencies near Nyquist, because
per-pixel noise looks like sensor noise and no model can learn it.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft

Field = npt.NDArray[np.float32]
"""(H, W) float32."""
Shape = tuple[int, int]
"""(H, W) in pixels."""


def streaks(shape: Shape, rng: np.random.Generator, along: float, across: float, angle: float = 0.0) -> Field:
    """Return Gaussian noise, correlated over `along` px at `angle` (radians from x) and `across` px perpendicular."""
    fy, fx = _frequencies(shape)
    lengthwise = fx * np.float32(np.cos(angle)) + fy * np.float32(np.sin(angle))
    crosswise = fy * np.float32(np.cos(angle)) - fx * np.float32(np.sin(angle))
    scale = np.float32(2 * np.pi**2)
    return _filtered(
        shape, rng, np.exp(-scale * (np.float32(along**2) * lengthwise**2 + np.float32(across**2) * crosswise**2))
    )


def smooth(shape: Shape, rng: np.random.Generator, radius: float) -> Field:
    """Return noise blurred by a Gaussian of standard deviation `radius` px."""
    return streaks(shape, rng, radius, radius)


def bumps(shape: Shape, rng: np.random.Generator, wavelength: float, spread: float = 0.4) -> Field:
    """Return band-pass noise around `wavelength` in px; `spread` is the bandwidth relative to its centre."""
    centre = np.float32(1 / wavelength)
    return _filtered(shape, rng, np.exp(-(((_radius(shape) - centre) / (np.float32(spread) * centre)) ** 2)))


def cloud(shape: Shape, rng: np.random.Generator, steepness: float = 1.6, finest: float = 1.0) -> Field:
    """Return noise with amplitude frequency ** -`steepness`, blurred by a Gaussian of `finest` px."""
    radius = _radius(shape)
    floor = np.float32(0.7 / max(shape))
    amplitude = np.exp(np.float32(-steepness) * np.log(np.maximum(radius, floor)))
    return _filtered(shape, rng, amplitude * np.exp(-np.float32(2 * np.pi**2 * finest**2) * radius**2))


def profile(length: int, rng: np.random.Generator, radius: float) -> Field:
    """Return noise (length,) along a line, correlated over `radius` samples."""
    return streaks((1, length), rng, radius, 0.0)[0]


def slope(height: Field, light: tuple[float, float]) -> Field:
    """Return the shading of a relief, positive on slopes that face the light.

    It is the negated derivative of `height` (px) in the direction (x, y) of the light.
    """
    rise_y, rise_x = np.gradient(height)
    return np.asarray(-np.float32(light[0]) * rise_x - np.float32(light[1]) * rise_y, dtype=np.float32)


@lru_cache(maxsize=8)
def pixel_grid(shape: Shape) -> tuple[Field, Field]:
    """Return row (H, 1) and column (1, W) coordinates in px."""
    return np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]


@lru_cache(maxsize=8)
def _frequencies(shape: Shape) -> tuple[Field, Field]:
    """Return the frequencies of `irfft2` in cycles per px, as a column and a row."""
    vertical = fft.fftfreq(shape[0]).astype(np.float32)
    return vertical[:, None], fft.rfftfreq(shape[1]).astype(np.float32)[None, :]


@lru_cache(maxsize=8)
def _radius(shape: Shape) -> Field:
    fy, fx = _frequencies(shape)
    return np.hypot(fy, fx)


def _filtered(shape: Shape, rng: np.random.Generator, amplitude: Field) -> Field:
    """Return white noise filtered by `amplitude`, with zero mean and unit variance."""
    spectrum = rng.standard_normal((2, *amplitude.shape), dtype=np.float32) * amplitude
    waves = spectrum[0] + np.complex64(1j) * spectrum[1]
    waves[0, 0] = 0
    field: Field = fft.irfft2(waves, s=shape)
    return field / max(np.float32(field.std()), np.float32(1e-9))
