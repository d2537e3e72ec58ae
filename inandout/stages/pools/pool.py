"""What pools of synthetic positives have in common: where they lie, how they are read and logged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import mlflow
from pydantic import Field

from inandout.data.images import read_image
from inandout.data.manifest import Sample, read_manifest
from inandout.errors import InputError
from inandout.mixing import mix
from inandout.reporting.figures import contact_sheet
from inandout.review.gallery import write_gallery
from inandout.tracking.runs import artifact_folder

SHEET_SIZE = 32
"""Images on the contact sheet of a pool."""


PoolSize = Annotated[int, Field(ge=1, le=100_000, description="number of synthetic positives")]


class Pool(NamedTuple):
    """The synthetic images that a run made."""

    samples: list[Sample]
    """Rows of its manifest."""
    run_id: str
    """Empty for a folder."""


def read_pool(folder: Path, run_id: str = "") -> Pool:
    """The pool in a folder."""
    path = folder / "manifest.csv"
    if not path.exists():
        raise InputError(f"{folder}: not a pool of images; it needs a manifest.csv as `augment` writes it")
    return Pool(read_manifest(path), run_id)


def open_pool(where: str) -> Pool:
    """A pool, by its folder or the id of the run that made it."""
    return read_pool(pool_folder(where), "" if Path(where).is_dir() else where)


def pool_folder(where: str) -> Path:
    """Where a pool lies, given as a folder or as the run that made it."""
    return Path(where) if Path(where).is_dir() else artifact_folder(where, "pool")


def refuse_unfit(real: Sequence[Sample], synthetic: Sequence[Sample]) -> None:
    """Refuse a pool that a training mix refuses, for example one made from images outside the training part."""
    if synthetic[0].origin == "memseg":
        mix(real, synthetic, [], len(synthetic), 0.0)
    else:
        mix(real, [], synthetic, len(synthetic), 1.0)


def work_pool(work: Path) -> Path:
    """The folder of a pool that is being made."""
    folder = work.resolve() / "pool"
    folder.mkdir(exist_ok=True)
    return folder


def log_pool(folder: Path, rows: Sequence[Sample]) -> None:
    """Log the folder of a pool with its manifest's `rows`, a gallery and a contact sheet."""
    mlflow.log_artifacts(str(folder), "pool")
    gallery = folder.with_name("index.html")
    write_gallery(gallery, f"{len(rows)} {rows[0].origin} images", folder, rows, "../pool")
    mlflow.log_artifact(str(gallery), "gallery")
    shown = [read_image(sample.image) for sample in rows[:SHEET_SIZE]]
    captions = [sample.prompt or f"seed {sample.seed}" for sample in rows[:SHEET_SIZE]]
    mlflow.log_image(contact_sheet(shown, captions), artifact_file="pool.png")
