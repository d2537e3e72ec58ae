"""Small review sessions with unusual prompts."""

from pathlib import Path

import numpy as np

from inandout.data.images import read_image, write_image
from inandout.data.manifest import Sample, digest, write_manifest
from inandout.review.session import ReviewSession, build_session

ODD = [
    "background scratched",
    "\"quotes\" and 'single' & <b>bold</b>",
    "<script>document.title='hacked'</script>",
    "two\nlines",
    "emoji 😀 and ü",
    "x" * 300,
]
"""Prompts that the page must show as plain text."""


def noise(seed: int, height: int = 48, width: int = 32, mean: int = 110) -> np.ndarray:
    """Return a rough grey surface that depends on the seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(mean - 40, mean + 40, (height // 4, width // 4, 1)).repeat(4, axis=0).repeat(4, axis=1)
    return (coarse + rng.integers(-8, 8, (height, width, 1))).clip(0, 255).astype(np.uint8).repeat(3, axis=2)


def write_pool(folder: Path, n: int = 6, size: tuple[int, int] = (48, 32)) -> list[Sample]:
    """Write `n` diffusion images that cycle through the prompts of `ODD`, and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(n):
        write_image(folder / f"{number:06d}.png", noise(number, *size))
        rows.append(
            Sample(
                image=folder / f"{number:06d}.png", label=1, split="train", origin="ddpm", seed=number, alpha=0.6,
                prompt=ODD[number % len(ODD)], sources=("ab" * 16,),
            )
        )  # fmt: skip
    write_manifest(rows, folder / "manifest.csv")
    return rows


def write_real(folder: Path, positives: int = 6, negatives: int = 3) -> list[Sample]:
    """Write real images of the training part, the positives first."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(positives + negatives):
        write_image(folder / f"{number}.png", noise(1000 + number))
        rows.append(Sample(image=folder / f"{number}.png", label=int(number < positives), split="train"))
    return rows


def local_change(real: Sample, folder: Path, amount: int) -> Sample:
    """Write a copy of a real image with a square changed by `amount` grey levels, like an image of MemSeg."""
    image = read_image(real.image).astype(int)
    image[10:20, 8:18] += amount
    path = folder / f"changed_{amount}.png"
    write_image(path, image.clip(0, 255).astype(np.uint8))
    return Sample(image=path, label=1, split="train", origin="memseg", sources=(digest(real.image),))


def small_session(folder: Path, n: int = 6) -> ReviewSession:
    """Return the session of a small pool with real images."""
    rows = write_pool(folder / "pool", n)
    real = write_real(folder / "real")
    rows.append(local_change(real[-1], folder / "pool", 60))
    return build_session("pool <i>one</i>", folder / "pool", rows, real)
