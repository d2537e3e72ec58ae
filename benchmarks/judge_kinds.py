"""Judge the kinds of real defects: which kind does each image of a pool show, or none?

    python benchmarks/judge_kinds.py --data tiles.csv --weights mobilenet_v2.safetensors --pool <folder> --pool ...

A logistic regression on features of a frozen MobileNetV2 is trained on the real images of a dataset whose manifest has
the columns `defect`, `mask` and `group`. It sees the whole image and a window around the mask, or at a random place
without one. Its confusion matrix on real images that it has not seen comes first, by cross-validation over groups. The
images of each pool are then classified by judges that have not seen the group of their good part. The rows of a pool
are its column `defect`, or the last words of its prompts.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from inandout.classifier.backbone import DefectNet, build_classifier
from inandout.classifier.config import BackboneConfig
from inandout.classifier.features import evaluate_batches
from inandout.data.config import Geometry
from inandout.data.geometry import fit_image, fit_mask
from inandout.data.images import ImageArray, ImageBatch, read_image, read_mask
from inandout.data.manifest import Sample
from inandout.data.prepare import read_data
from inandout.diffusion.sample.window import cut, random_window, window_around
from inandout.reporting.tables import aligned
from inandout.stages.pools.pool import read_pool

NONE = "none"
FOLDS = 5
WINDOW = 128
"""Side in px to which windows are enlarged."""

Kinds = npt.NDArray[np.str_]
JudgeOf = Callable[[str], Pipeline]
"""Maps a group to a judge that has not seen it."""


def describe(network: DefectNet, samples: Sequence[Sample], size: Geometry, side: int) -> npt.NDArray[np.float32]:
    """Return features (N, C) of images: those of the whole image, then those of a window of `side` px."""
    views = [look(sample, size, side, np.random.default_rng(number)) for number, sample in enumerate(samples)]
    wholes, windows = (np.stack(images) for images in zip(*views, strict=True))
    return np.concatenate([pool_maps(network, wholes), pool_maps(network, windows)], axis=1)


def look(sample: Sample, size: Geometry, side: int, rng: np.random.Generator) -> tuple[ImageArray, ImageArray]:
    """Return a fitted image, and its window around the mask, or at a random place if the mask is missing or empty."""
    image = fit_image(read_image(sample.image), size)
    mask = fit_mask(read_mask(sample.mask), size) if sample.mask else None
    if mask is not None and mask.any():
        window = window_around(mask, side)
    else:
        window = random_window((size.height, size.width), side, None, rng)
    return image, cut(image, window, (WINDOW, WINDOW))


def pool_maps(network: DefectNet, images: ImageBatch) -> npt.NDArray[np.float32]:
    """Return features (N, C) of images (N, H, W, 3): mean and maximum of the feature maps at 1/8, 1/16 and 1/32."""

    def pooled(batch: torch.Tensor) -> torch.Tensor:
        maps = network.head_inputs(batch)
        return torch.cat([part for each in maps for part in (each.mean(dim=(2, 3)), each.amax(dim=(2, 3)))], dim=1)

    return torch.cat(list(evaluate_batches(network, pooled, images, 32))).numpy()


def new_judge() -> Pipeline:
    """Return an untrained judge; kinds weigh equally, however rare they are."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=3e-4, class_weight="balanced", max_iter=2000))


def cross_validate(features: npt.NDArray[np.float32], kinds: Kinds, groups: Kinds) -> tuple[Kinds, JudgeOf]:
    """Return the kind of each image by a judge that has not seen its group, and the judge for each group.

    Groups that no real image has get the judge of the first fold.
    """
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    found, judges = np.empty_like(kinds), list[Pipeline]()
    fold_of: dict[str, int] = {}
    for number, (training, held_out) in enumerate(folds.split(features, kinds, groups)):
        judges.append(new_judge().fit(features[training], kinds[training]))
        found[held_out] = judges[-1].predict(features[held_out])
        fold_of |= dict.fromkeys(groups[held_out].tolist(), number)
    return found, lambda group: judges[fold_of.get(group, 0)]


def kind_of(sample: Sample) -> str:
    """Return the kind of a real image, `NONE` for good parts."""
    return sample.defect if sample.label == 1 else NONE


def asked(sample: Sample) -> str:
    """Return the kind of a synthetic image by its row, or the last word of its prompt; "?" without both."""
    return sample.defect or [*"?", *sample.prompt.split()][-1]


def table(rows: Kinds, columns: Kinds, names: Sequence[str]) -> str:
    """Return a table with the percentages of `columns` (N,) for each value of `rows` (N,)."""
    lines = [["", "images", *names]]
    for row in dict.fromkeys(rows.tolist()):
        found = columns[rows == row]
        lines.append([row, str(len(found)), *(f"{np.mean(found == name):.0%}" for name in names)])
    return aligned(lines)


def main() -> None:
    """Train the judge, print its accuracy on unseen real images, then judge each pool."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", required=True, help="dataset whose manifest has the columns defect and group")
    options.add_argument("--weights", required=True, help="MobileNetV2 with ImageNet weights, .safetensors")
    options.add_argument("--side", type=int, default=160, help="images are resized to side x side px")
    options.add_argument("--window", type=int, default=48, help="side of the window in px")
    options.add_argument("--pool", action="append", type=Path, default=[], help="folder of a pool; may be repeated")
    given = options.parse_args()
    size = Geometry(width=given.side, height=given.side, fit="stretch")
    start = BackboneConfig(backbone="mobilenet_v2", weights=given.weights, freeze="all", head="mask", tile=32)
    network = build_classifier(start, 0)
    real = read_data(given.data).samples
    kinds = np.array([kind_of(sample) for sample in real])
    names = [NONE, *sorted(set(kinds.tolist()) - {NONE})]
    features, groups = describe(network, real, size, given.window), np.array([sample.group for sample in real])
    found, judge_of = cross_validate(features, kinds, groups)
    recalls = [np.mean(found[kinds == name] == name) for name in names]
    print(f"real images, each classified by a judge that has not seen its group: mean recall {np.mean(recalls):.2f}")
    print(table(kinds, found, names), flush=True)
    for folder in given.pool:
        synthetic = read_pool(folder).samples
        wanted = np.array([asked(sample) for sample in synthetic])
        described = describe(network, synthetic, size, given.window)
        shown = np.array(
            [judge_of(sample.group).predict(row[None])[0] for sample, row in zip(synthetic, described, strict=True)]
        )
        print(f"\n{folder}: percent of the images with this word")
        print(table(wanted, shown, names), flush=True)


if __name__ == "__main__":
    main()
