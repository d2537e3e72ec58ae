"""Time to draw the embedded dataset: `python benchmarks/surfaces.py`."""

import tempfile
import time
from pathlib import Path

from inandout.data.surfaces import KINDS, SurfacesConfig, draw_surface, write_surfaces

SIZES = ((64, 64), (96, 96), (64, 192), (200, 600))


def main() -> None:
    """Print the time for a dataset of 500 images, and milliseconds per image at several sizes."""
    config = SurfacesConfig(train_negatives=250, train_positives=100, test_negatives=100, test_positives=50)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_surfaces(Path(folder) / "surfaces", config)
        print(f"500 images of {config.width}x{config.height} written: {time.perf_counter() - start:.2f} s")
    for width, height in SIZES:
        print(f"{width}x{height}: {milliseconds(width, height):.2f} ms per image")


def milliseconds(width: int, height: int, images: int = 140) -> float:
    """Return the mean time to draw an image over all surfaces, without a defect and with each kind."""
    kinds = ("", *KINDS)
    start = time.perf_counter()
    for seed in range(images):
        draw_surface(width, height, seed, kinds[seed % len(kinds)])
    return (time.perf_counter() - start) / images * 1e3


if __name__ == "__main__":
    main()
