"""Time of MemSeg synthesis on one core: by size, by part, and of its Perlin noise against a per-pixel implementation.

Times are processor times, which depend little on other load; on an idle machine they equal elapsed time.

Run it as `OMP_NUM_THREADS=1 python benchmarks/memseg.py --images 300`.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from typing import Any

import click
import numpy as np

from inandout.data.surfaces.textures import draw_texture
from inandout.memseg import anomaly
from inandout.memseg.config import MemSegConfig
from inandout.memseg.masks import MAX_EXPONENT
from inandout.memseg.perlin import Noise, perlin_noise
from inandout.memseg.texture_bank import TextureBank, open_textures

SIZES = ((64, 64), (128, 128), (256, 256), (200, 600), (512, 512), (1000, 1000))
PARTS = {"noise": ("draw_mask",), "source": ("texture_source", "structure_source"), "blend": ("blend",)}


def naive_noise(width: int, height: int, cells_x: int, cells_y: int, rng: np.random.Generator) -> Noise:
    """Compute Perlin noise as common implementations do: gather gradients for every pixel, in double precision."""
    angles = rng.uniform(0, 2 * math.pi, (cells_y + 1, cells_x + 1))
    gradients = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    y, x = np.mgrid[0:height, 0:width]
    y, x = y * (cells_y / height), x * (cells_x / width)
    row, column = y.astype(int), x.astype(int)
    y, x = y - row, x - column

    def corner(down: int, right: int) -> np.ndarray[Any, Any]:
        offset = np.stack([x - right, y - down], axis=-1)
        return (gradients[row + down, column + right] * offset).sum(axis=-1)

    fade_x, fade_y = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (x, y))
    above = corner(0, 0) * (1 - fade_x) + corner(0, 1) * fade_x
    below = corner(1, 0) * (1 - fade_x) + corner(1, 1) * fade_x
    return math.sqrt(2) * (above * (1 - fade_y) + below * fade_y)


def time_noise(noise: Callable[..., Noise], width: int, height: int) -> float:
    """Return the mean time in ms over all scales; each scale counts with the fastest of 3 calls."""
    scales = [2**k for k in range(MAX_EXPONENT + 1)]
    return float(
        np.mean([min(_time(noise, width, height, *pair) for _ in range(3)) for pair in product(scales, scales)])
    )


def _time(noise: Callable[..., Noise], *shape: int) -> float:
    rng = np.random.default_rng(0)
    start = time.process_time()
    noise(*shape, rng)
    return 1000 * (time.process_time() - start)


def time_parts(width: int, height: int, images: int, textures: TextureBank) -> tuple[list[float], dict[str, float]]:
    """Return the time of each of `images` anomalies in ms, and the share of each part in the total time."""
    image = draw_texture(width, height, np.random.default_rng(1))
    spent: dict[str, float] = defaultdict(float)
    originals = {name: getattr(anomaly, name) for names in PARTS.values() for name in names}
    for part, names in PARTS.items():
        for name in names:
            setattr(anomaly, name, _timed(originals[name], part, spent))
    totals = []
    for seed in range(images):
        start = time.process_time()
        anomaly.synthesise(image, seed, MemSegConfig(), textures)
        totals.append(1000 * (time.process_time() - start))
    for name, function in originals.items():
        setattr(anomaly, name, function)
    return totals, {part: spent[part] / sum(totals) for part in PARTS}


def _timed(function: Callable[..., Any], part: str, spent: dict[str, float]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        start = time.process_time()
        result = function(*args)
        spent[part] += 1000 * (time.process_time() - start)
        return result

    return call


@click.command(help=__doc__)
@click.option("--images", type=click.IntRange(10), default=300, show_default=True, help="anomalies per size")
def main(images: int) -> None:
    """Print the table."""
    textures = open_textures("")
    for index in range(len(textures)):
        textures.texture(index)
    click.echo(f"{'size':>10} {'mean ms':>8} {'p95 ms':>8}  noise source blend   rest | perlin ms  naive ms  ratio")
    for width, height in SIZES:
        totals, share = time_parts(width, height, images, textures)
        ours, naive = time_noise(perlin_noise, width, height), time_noise(naive_noise, width, height)
        parts = f"{share['noise']:6.0%} {share['source']:6.0%} {share['blend']:5.0%} {1 - sum(share.values()):6.0%}"
        click.echo(
            f"{f'{width}x{height}':>10} {np.mean(totals):8.2f} {np.quantile(totals, 0.95):8.2f} {parts} |"
            f" {ours:9.3f} {naive:9.2f} {naive / ours:5.0f}x"
        )


if __name__ == "__main__":
    main()
