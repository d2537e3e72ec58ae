"""Small defects in large images: draw a dataset, and measure recall by size at equal false alarms.

    python -m benchmarks.small_defects draw --out small
    python -m inandout classify --data small/data.csv --width 768 --height 256 --tile 64 --shot full --n-aug 0 ...
    python -m benchmarks.small_defects recall <run of classify> ...

Images are ground surfaces of 768x256 px. A defect is a spot with a diameter of 3 to 12 px, or a line of this length and
of 1.5 px width; 70 % are dark. The column `defect` of the manifest holds the size. `recall` prints the
recall of each run at thresholds that at most 1 % and 5 % of the good test images exceed. They come from the test
images, so the recall compares classifiers and does not predict the recall in production.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from inandout.data.images import ImageArray, Mask, write_image
from inandout.data.surfaces import draw_surface
from inandout.evaluation.metrics import Scored, ranking
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.tracking.store import connect

WIDTH, HEIGHT = 768, 256
SMALLEST, LARGEST = 3.0, 12.0
PARTS = {"train": (220, 120), "test": (300, 240)}
"""Split to its numbers of good and defective images."""
FIRST_SEED = 50_000
FALSE_ALARMS = (0.01, 0.05)
BINS = ((3, 6), (6, 9), (9, 12))


def add_defect(image: ImageArray, size: float, rng: np.random.Generator) -> tuple[ImageArray, Mask]:
    """Draw a defect of `size` px at a random place, and return the image and the mask."""
    y, x = rng.uniform(20, HEIGHT - 20), rng.uniform(20, WIDTH - 20)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    angle = rng.uniform(0, np.pi)
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    width = size if rng.random() < 0.5 else 1.5
    cover = gaussian_filter(((2 * along / size) ** 2 + (2 * across / width) ** 2 <= 1).astype(float), 0.5)[..., None]
    brightness = float(image.mean())
    target = 0.35 * brightness if rng.random() < 0.7 else min(255.0, 1.6 * brightness + 30)
    changed = np.rint((image * (1 - cover) + target * cover).clip(0, 255)).astype(np.uint8)
    return changed, cover[..., 0] > 0.25


def draw(out: Path) -> None:
    """Write images, masks and `data.csv`."""
    (out / "images").mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for split, (good, defective) in PARTS.items():
        for place in range(good + defective):
            number, mask = len(rows), ""
            name = f"images/{number:04}"
            image = draw_surface(WIDTH, HEIGHT, FIRST_SEED + number, "", "ground", 3).image
            size = SMALLEST + (LARGEST - SMALLEST) * (place - good) / defective
            if place >= good:
                image, cover = add_defect(image, size, np.random.default_rng(number))
                mask = f"{name}_mask.png"
                write_image(out / mask, cover)
            write_image(out / f"{name}.png", image)
            row = {"image": f"{name}.png", "mask": mask, "label": int(bool(mask)), "split": split}
            rows.append(row | {"defect": f"{size:.2f}" if mask else ""})
    with (out / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def recalls(scored: Scored, false_alarms: float) -> list[float]:
    """Return the recall of each of `BINS` where at most a share `false_alarms` of the good images is found."""
    good = scored.logits[scored.labels == 0]
    found: npt.NDArray[np.bool_] = scored.logits > np.quantile(good, 1 - false_alarms, method="higher")
    sizes = np.array([float(kind or 0) for kind in scored.kinds])
    return [float(found[(sizes >= low) & (sizes < high)].mean()) for low, high in BINS]


def main() -> None:
    """Draw the dataset, or print a line per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("draw").add_argument("--out", type=Path, required=True, help="new folder")
    commands.add_parser("recall").add_argument("runs", nargs="+", help="run ids of classify")
    given = parser.parse_args()
    if given.command == "draw":
        draw(given.out)
        return
    connect()
    print(f"run, AP, recall of {', '.join(f'{low}-{high} px' for low, high in BINS)} at each of {FALSE_ALARMS}")
    for name in given.runs:
        run = TrainedClassifier.open(name)
        scored = run.scores()
        values = [recalls(scored, share) for share in FALSE_ALARMS]
        shown = " | ".join(" ".join(f"{value:.2f}" for value in row) for row in values)
        size = run.config.geometry
        ap = ranking(scored.logits, scored.labels)["ap"]
        print(f"{name[:8]} {size.width}x{size.height} tile {run.config.backbone.tile}: {ap:.3f} | {shown}")


if __name__ == "__main__":
    main()
