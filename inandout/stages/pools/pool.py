"""Read and log pools of synthetic images."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow

from inandout.data.config import Geometry
from inandout.data.geometry import fit_image
from inandout.data.images import IMAGE_SUFFIXES, read_image
from inandout.data.manifest import Sample, read_manifest
from inandout.errors import InputError
from inandout.evaluation.product_statistics import FEWEST, ProductShares, product_shares
from inandout.mixing import mix
from inandout.reporting.figures import contact_sheet
from inandout.review.gallery import write_gallery
from inandout.tracking.runs import artifact_folder

_COMPARED = 200
SHEET_SIZE = 32
"""Maximum number of images on the contact sheet of a pool."""


class Pool(NamedTuple):
    """A pool of synthetic images."""

    samples: list[Sample]
    """Rows of the manifest."""
    run_id: str
    """Run id; empty for a folder."""


def read_pool(folder: Path, run_id: str = "") -> Pool:
    """Read the pool in a folder: its `manifest.csv`, or the images of another generator.

    Images without a manifest are positives of origin "other", in the order of their names.
    """
    path = folder / "manifest.csv"
    if path.exists():
        return Pool(read_manifest(path), run_id)
    images = sorted(file.absolute() for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise InputError(
            f"{folder}: is not a pool because it has no manifest.csv and no images; give a folder that `augment` "
            "wrote, or a folder of images"
        )
    return Pool([Sample(image=image, label=1, origin="other") for image in images], run_id)


def open_pool(where: str) -> Pool:
    """Read a pool, given by its folder or run id."""
    return read_pool(pool_folder(where), "" if Path(where).is_dir() else where)


def pool_folder(where: str) -> Path:
    """Return the folder of a pool, given by its folder or run id."""
    return Path(where) if Path(where).is_dir() else artifact_folder(where, "pool")


def refuse_unfit(real: Sequence[Sample], synthetic: Sequence[Sample]) -> None:
    """Raise InputError if a training mix cannot use the pool, e.g. if its sources are not in the training part."""
    if synthetic[0].origin == "memseg":
        mix(real, synthetic, [], len(synthetic), 0.0)
    else:
        mix(real, [], synthetic, len(synthetic), 1.0)


def work_pool(work: Path) -> Path:
    """Return the folder for a new pool inside the work folder of a run."""
    folder = work.resolve() / "pool"
    folder.mkdir(exist_ok=True)
    return folder


def log_pool(folder: Path, rows: Sequence[Sample], real: Sequence[Sample], geometry: Geometry) -> None:
    """Log a pool.

    Logged are its folder, a gallery, a contact sheet, and the shares of images with the product's colour, light and
    texture.

    Args:
        folder: of the pool.
        rows: of its manifest.
        real: the dataset; its training negatives show the product.
        geometry: of the pool's images.
    """
    mlflow.log_artifacts(str(folder), "pool")
    title = f"{len(rows)} {rows[0].origin} images"
    shares = _product_shares(rows, real, geometry)
    if shares:
        mlflow.log_metrics({f"share_in_{name}": share for name, share in shares._asdict().items()})
        title += f", {shares.product:.0%} with the colour, light and texture of good parts"
    gallery = folder.with_name("index.html")
    write_gallery(gallery, title, folder, rows, "../pool")
    mlflow.log_artifact(str(gallery), "gallery")
    images = [read_image(sample.image) for sample in rows[:SHEET_SIZE]]
    captions = [sample.prompt or f"seed {sample.seed}" for sample in rows[:SHEET_SIZE]]
    mlflow.log_image(contact_sheet(images, captions), artifact_file="pool.png")


def _product_shares(rows: Sequence[Sample], real: Sequence[Sample], geometry: Geometry) -> ProductShares | None:
    """Compare up to `_COMPARED` images with as many good parts; None if there are too few good parts."""
    negatives = [sample for sample in real if (sample.split, sample.label) == ("train", 0)]
    if len(negatives) < FEWEST:
        return None
    good = [fit_image(read_image(sample.image), geometry) for sample in _spread(negatives)]
    return product_shares([read_image(sample.image) for sample in _spread(rows)], good)


def _spread(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return at most `_COMPARED` samples at equal distances."""
    return samples[:: -(-len(samples) // _COMPARED)]
