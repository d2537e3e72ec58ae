"""What pools of synthetic positives have in common: where they lie, how they are read and logged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import mlflow
from pydantic import Field

from inandout.data.images import read_image
from inandout.data.manifest import Sample, read_manifest
from inandout.errors import InputError
from inandout.reporting.figures import contact_sheet
from inandout.review.gallery import write_gallery
from inandout.tracking.runs import artifact_folder

SHEET_SIZE = 32
"""Images on the contact sheet of a pool."""


PoolSize = Annotated[int, Field(ge=1, le=100_000, description="number of synthetic positives")]


class Pool(NamedTuple):
    """Synthetic images and the run that made them."""

    samples: list[Sample]
    run_id: str


def read_pool(folder: Path) -> list[Sample]:
    """The manifest of a pool folder."""
    path = folder / "manifest.csv"
    if not path.exists():
        raise InputError(f"{folder}: not a pool of images; it needs a manifest.csv as `augment` writes it")
    return read_manifest(path)


def open_pool(where: str) -> list[Sample]:
    """The manifest of a pool, by its folder or the run id of `augment`."""
    return read_pool(pool_folder(where))


def pool_folder(where: str) -> Path:
    """Where a pool lies, given as a folder or as the run that made it."""
    return Path(where) if Path(where).is_dir() else artifact_folder(where, "pool")


def work_pool(work: Path) -> Path:
    """The folder of a pool that is being made."""
    folder = work.resolve() / "pool"
    folder.mkdir(exist_ok=True)
    return folder


def log_pool(folder: Path, pool: Sequence[Sample]) -> None:
    """A pool as artifacts: its folder, a gallery and a contact sheet."""
    mlflow.log_artifacts(str(folder), "pool")
    gallery = folder.with_name("index.html")
    write_gallery(gallery, f"{len(pool)} {pool[0].origin} images", folder, pool, "../pool")
    mlflow.log_artifact(str(gallery), "gallery")
    shown = [read_image(sample.image) for sample in pool[:SHEET_SIZE]]
    captions = [sample.prompt or f"seed {sample.seed}" for sample in pool[:SHEET_SIZE]]
    mlflow.log_image(contact_sheet(shown, captions), artifact_file="pool.png")
