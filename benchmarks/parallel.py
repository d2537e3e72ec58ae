"""Speed-up of two workers over one worker that uses all cores.

    python benchmarks/parallel.py

Trains `CELLS` small classifiers with one worker and then with two, `ROUNDS` times, and prints seconds and their ratio.
The time includes starting a worker, which imports PyTorch.
"""

import statistics
import time

import numpy as np

from inandout.classifier.backbone import build_classifier
from inandout.classifier.config import BackboneConfig, FitConfig
from inandout.classifier.training import fit
from inandout.parallel import ParallelConfig, run_all

CELLS, ROUNDS, SIDE, IMAGES = 4, 3, 64, 96


def train(seed: int) -> float:
    """Train for four epochs on random images; return the last loss."""
    pixels = np.random.default_rng(seed).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    model = build_classifier(BackboneConfig(), seed)
    labels = np.arange(IMAGES) % 2
    history = fit(model, pixels, labels, FitConfig(epochs=4, batch_size=8, optimiser="adamw", lr=1e-3), seed=seed)
    return history[-1]["loss"]


def seconds(workers: int) -> float:
    """Return the seconds to train all cells with this number of workers."""
    started = time.perf_counter()
    losses = [task.result for task in run_all(train, range(CELLS), ParallelConfig(workers=workers))]
    assert len(losses) == CELLS
    return time.perf_counter() - started


def main() -> None:
    """Alternate the measurements, so that other load on the machine slows both."""
    rounds = [(seconds(1), seconds(2)) for _ in range(ROUNDS)]
    ratios = sorted(one / two for one, two in rounds)
    one, two = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"{CELLS} cells: one worker {one:.1f} s, two {two:.1f} s")
    print(f"two are {statistics.median(ratios):.2f} times as fast: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
