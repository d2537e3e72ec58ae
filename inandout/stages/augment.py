"""Entry point `augment`: a pool of synthetic positives from the negatives of the training part."""

from pathlib import Path
from typing import NamedTuple

import mlflow
from pydantic import Field

from inandout.data.geometry import Geometry
from inandout.data.images import read_image
from inandout.data.manifest import Sample, digests, fingerprint, read_manifest
from inandout.data.prepare import DataConfig, prepare
from inandout.errors import InputError
from inandout.memseg.config import MemSegConfig
from inandout.memseg.pool import write_pool
from inandout.memseg.textures import FolderTextures, open_textures
from inandout.pictures import contact_sheet
from inandout.tracking import artifact_folder, connect, run_stage

SHEET_SIZE = 32
"""Pictures on the contact sheet of a pool."""


class AugmentConfig(DataConfig, Geometry, MemSegConfig):
    """A MemSeg pool."""

    n_aug: int = Field(60, ge=1, le=100_000, description="number of synthetic positives")
    fresh: bool = Field(False, description="run again although a finished run has the same fingerprint")

    def memseg(self) -> MemSegConfig:
        """The part that says how anomalies are drawn."""
        return MemSegConfig(**self.model_dump(include=set(MemSegConfig.model_fields)))


class Pool(NamedTuple):
    """Synthetic pictures and the run that made them."""

    samples: list[Sample]
    run_id: str


def augment(config: AugmentConfig) -> Pool:
    """Make the pool, or find it where it was made before."""
    connect()
    samples = prepare(config)
    inputs = {"data": fingerprint(samples)} | _texture_digests(config.textures)
    name = f"memseg n={config.n_aug} seed={config.seed}"
    run = run_stage("augment", name, config, inputs, samples, lambda folder: _make_and_log(config, samples, folder))
    return Pool(read_pool(artifact_folder(run.info.run_id, "pool")), run.info.run_id)


def read_pool(folder: Path) -> list[Sample]:
    """The manifest of a pool folder."""
    path = folder / "manifest.csv"
    if not path.exists():
        raise InputError(f"{folder}: not a pool of pictures; it needs a manifest.csv as `augment` writes it")
    return read_manifest(path)


def _texture_digests(folder: str) -> dict[str, str]:
    """Identity of a folder of textures; the procedural ones belong to the code."""
    if not folder:
        return {}
    textures = open_textures(folder)
    assert isinstance(textures, FolderTextures)
    return {"textures": " ".join(digests(textures.paths))}


def _make_and_log(config: AugmentConfig, samples: list[Sample], work: Path) -> None:
    negatives = [sample for sample in samples if sample.split == "train" and sample.label == 0]
    folder = work.resolve() / "pool"
    folder.mkdir(exist_ok=True)
    pool = write_pool(negatives, folder, n=config.n_aug, geometry=config, seed=config.seed, config=config.memseg())
    mlflow.log_artifacts(str(folder), "pool")
    shown = pool[:SHEET_SIZE]
    captions = [f"seed {sample.seed}" for sample in shown]
    mlflow.log_image(contact_sheet([read_image(s.image) for s in shown], captions), artifact_file="pool.png")
