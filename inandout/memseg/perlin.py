"""Perlin gradient noise of any shape, evaluated by rows and columns instead of pixels.

Inside a lattice cell Perlin noise is a weighted sum of gradient times offset over the four corners. On a pixel grid the
offsets depend on the column or the row only, and the weights are separable. So each lattice row is evaluated once along
x, and an image row is a weighted sum of four such rows. BLAS is avoided, because its rounding depends on the number of
threads.

Sources: Perlin, "An image synthesizer", SIGGRAPH 1985; fade polynomial: "Improving noise", SIGGRAPH 2002.
"""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

Noise = npt.NDArray[np.float32]
"""(H, W), about -1..1."""
_Positions = npt.NDArray[np.floating]
_Split = tuple[npt.NDArray[np.intp], Noise, Noise]

_MARGIN = 2
"""Pixels of padding on each side of the canvas of a rotation, for bilinear sampling."""


def perlin_noise(width: int, height: int, cells_x: int, cells_y: int, rng: np.random.Generator) -> Noise:
    """Draw Perlin noise with `cells_x` by `cells_y` lattice cells, which need not divide the size.

    Pixel x is at lattice position x * cells_x / width, so the noise is 0 at the first pixel of each cell.

    Returns:
        (height, width) float32, scaled by sqrt(2) so that it spans about -1..1.
    """
    x = np.arange(width) * (cells_x / width)
    y = np.arange(height) * (cells_y / height)
    return evaluate(draw_gradients(cells_y + 1, cells_x + 1, rng), x, y)


def rotated_perlin_noise(
    width: int, height: int, cells_x: int, cells_y: int, degrees: float, rng: np.random.Generator
) -> Noise:
    """Draw Perlin noise rotated about the image centre by `degrees`, counter-clockwise.

    The lattice extends beyond the image, so that no corner is empty. Public implementations rotate noise of the image's
    size and fill the corners with 0, so anomalies never reach the corners.

    Returns:
        (height, width) float32, about -1..1, bilinearly sampled.
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_width = math.ceil((width * abs(cos) + height * abs(sin)) / 2) + _MARGIN
    half_height = math.ceil((width * abs(sin) + height * abs(cos)) / 2) + _MARGIN
    x = (np.arange(2 * half_width) - half_width + width / 2) * (cells_x / width)
    y = (np.arange(2 * half_height) - half_height + height / 2) * (cells_y / height)
    x, y = x - math.floor(x[0]), y - math.floor(y[0])
    canvas = evaluate(draw_gradients(int(y[-1]) + 2, int(x[-1]) + 2, rng), x, y)
    to_x = (cos, -sin, half_width - (width * cos - height * sin) / 2)
    to_y = (sin, cos, half_height - (width * sin + height * cos) / 2)
    rotated = Image.fromarray(canvas).transform(
        (width, height), Image.Transform.AFFINE, to_x + to_y, Image.Resampling.BILINEAR
    )
    return np.asarray(rotated)


def draw_gradients(rows: int, columns: int, rng: np.random.Generator) -> Noise:
    """Draw random unit vectors (2, rows, columns) for the lattice points, x and y along axis 0."""
    angles = rng.uniform(0, 2 * math.pi, (rows, columns))
    return np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def evaluate(gradients: Noise, x: _Positions, y: _Positions) -> Noise:
    """Evaluate the noise at all pairs of positions.

    Args:
        gradients: (2, rows, columns) from `draw_gradients`.
        x: (W,) positions in lattice cells, 0 <= x < columns - 1.
        y: (H,) positions in lattice cells, 0 <= y < rows - 1.

    Returns:
        (H, W) float32.
    """
    column, offset_x, fade_x = _split(x)
    left, right = gradients[:, :, column], gradients[:, :, column + 1]
    along_x = left[0] * ((1 - fade_x) * offset_x) + right[0] * (fade_x * (offset_x - 1))
    along_y = left[1] * (1 - fade_x) + right[1] * fade_x
    row, offset_y, fade_y = _split(y)
    offset_y = offset_y[:, None]
    below = np.float32(math.sqrt(2)) * fade_y[:, None]
    above = np.float32(math.sqrt(2)) - below
    noise = along_x[row] * above
    noise += along_y[row] * (above * offset_y)
    noise += along_x[row + 1] * below
    noise += along_y[row + 1] * (below * (offset_y - 1))
    return noise


def _split(positions: _Positions) -> _Split:
    """Return lattice cell, offset t within it (0..1), and Perlin's fade 6 t^5 - 15 t^4 + 10 t^3."""
    cell = positions.astype(np.intp)
    offset = positions - cell
    fade = offset**3 * (offset * (offset * 6 - 15) + 10)
    return cell, offset.astype(np.float32), fade.astype(np.float32)
