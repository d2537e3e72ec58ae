"""Overhead of the training loop over a bare PyTorch loop.

    python benchmarks/train_step.py

Prints the time per step of `inandout.classifier.training.fit` and of a bare loop on the same images, batches and
initial weights, and their ratio; and the memory of the image cache relative to a loader with float32 and int64. Each
loop runs two epochs and times the second. The loops alternate, so that other load on the machine slows both.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from inandout.classifier.backbone import build_classifier
from inandout.classifier.config import BackboneConfig, FitConfig
from inandout.classifier.frequency_sampler import FrequencySampler
from inandout.classifier.training import fit

IMAGES, BATCH = 48, 5


def bare_epoch(pixels: np.ndarray, labels: np.ndarray) -> float:
    """Return the seconds of the second epoch of a bare PyTorch loop."""
    model = build_classifier(BackboneConfig(), 0).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    sampler = FrequencySampler(labels, 0)
    for order in (sampler.epoch(), sampler.epoch()):
        batches = [
            (torch.from_numpy(pixels[batch]).permute(0, 3, 1, 2), torch.from_numpy(labels[batch]).float())
            for batch in np.array_split(order, -(-len(order) // BATCH))
        ]
        started = time.perf_counter()
        for images, targets in batches:
            optimiser.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(model(images), targets).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return time.perf_counter() - started


def our_epoch(pixels: np.ndarray, labels: np.ndarray) -> float:
    """Return the seconds of the second epoch of `fit`, without a checkpoint."""
    ends: list[float] = []
    fit(
        build_classifier(BackboneConfig(), 0), pixels, labels,
        FitConfig(epochs=2, batch_size=BATCH, optimiser="sgd", lr=0.01), seed=0,
        on_epoch=lambda epoch, values: ends.append(time.perf_counter()),
    )  # fmt: skip
    return ends[1] - ends[0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds per loop, after a warm-up round (default: 7)")
    parser.add_argument("--width", type=int, default=96, help="width of images in px (default: 96)")
    parser.add_argument("--height", type=int, default=96, help="height of images in px (default: 96)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES, options.height, options.width, 3), dtype=np.uint8)
    labels = np.arange(IMAGES) % 2
    steps = -(-IMAGES // BATCH)
    times = [(our_epoch(pixels, labels), bare_epoch(pixels, labels)) for _ in range(options.rounds + 1)][1:]
    ours, bare = (statistics.median(column) / steps for column in zip(*times, strict=True))
    ratios = [our_seconds / bare_seconds for our_seconds, bare_seconds in times]
    print(f"{options.width}x{options.height}, batch {BATCH}, {torch.get_num_threads()} threads")
    print(f"fit        {ours * 1000:7.1f} ms per step")
    print(f"bare loop  {bare * 1000:7.1f} ms per step")
    print(f"ratio      {statistics.median(ratios):7.3f}  (median of rounds; {min(ratios):.3f} .. {max(ratios):.3f})")
    wide = pixels.size * 4 + pixels.size // 3 * 8
    print(f"cache      {pixels.nbytes / wide:7.3f}  of a loader with float32 images and int64 masks")


if __name__ == "__main__":
    main()
