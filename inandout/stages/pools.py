"""A pool of pictures as artifacts of the run that makes it."""

from collections.abc import Sequence
from pathlib import Path

import mlflow

from inandout.data.images import read_image
from inandout.data.manifest import Sample
from inandout.pictures import contact_sheet
from inandout.review.gallery import write_gallery

SHEET_SIZE = 32
"""Pictures on the contact sheet of a pool."""


def work_pool(work: Path) -> Path:
    """The folder of a pool that is being made."""
    folder = work.resolve() / "pool"
    folder.mkdir(exist_ok=True)
    return folder


def log_pool(folder: Path, pool: Sequence[Sample]) -> None:
    """A pool as artifacts: its folder, a gallery and a contact sheet."""
    mlflow.log_artifacts(str(folder), "pool")
    gallery = folder.with_name("index.html")
    write_gallery(gallery, f"{len(pool)} {pool[0].origin} pictures", folder, pool, "../pool")
    mlflow.log_artifact(str(gallery), "gallery")
    shown = [read_image(sample.image) for sample in pool[:SHEET_SIZE]]
    captions = [sample.prompt or f"seed {sample.seed}" for sample in pool[:SHEET_SIZE]]
    mlflow.log_image(contact_sheet(shown, captions), artifact_file="pool.png")
