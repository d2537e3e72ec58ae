"""Entry point `augment`: a pool of synthetic positives, from MemSeg, diffusion, or diffusion on good parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from inandout.data.geometry import Geometry
from inandout.data.manifest import Sample, digests, fingerprint
from inandout.data.prepare import DataConfig, prepare
from inandout.memseg.config import MemSegConfig
from inandout.memseg.pool import write_pool
from inandout.memseg.texture_bank import FolderTextures, open_textures
from inandout.stages.pools.inpaint import InpaintPoolConfig, augment_inpaint
from inandout.stages.pools.pool import Pool, PoolConfig, log_pool, open_pool, work_pool
from inandout.stages.pools.text2img import DdpmPoolConfig, augment_ddpm
from inandout.tracking import connect, run_stage


class MemSegPoolConfig(MemSegConfig, DataConfig, Geometry, PoolConfig):
    """A MemSeg pool."""

    def memseg(self) -> MemSegConfig:
        """The part that says how anomalies are drawn."""
        return MemSegConfig(**self.model_dump(include=set(MemSegConfig.model_fields)))


class AugmentConfig(MemSegPoolConfig, InpaintPoolConfig):  # type: ignore[misc]  # the plugin does not know diamonds
    """One pool; the options of the other sources do not matter."""

    source: Literal["memseg", "ddpm", "inpaint"] = Field(
        "memseg",
        description="memseg; ddpm: whole images of a fine-tuned diffusion model; inpaint: defects that it draws on "
        "good parts, which keep their pixels elsewhere",
    )


def augment(config: AugmentConfig) -> Pool:
    """Make a pool of synthetic positives, or find it where it was made before."""
    if config.source == "memseg":
        return augment_memseg(MemSegPoolConfig(**config.model_dump(include=set(MemSegPoolConfig.model_fields))))
    if config.source == "inpaint":
        return augment_inpaint(InpaintPoolConfig(**config.model_dump(include=set(InpaintPoolConfig.model_fields))))
    return augment_ddpm(DdpmPoolConfig(**config.model_dump(include=set(DdpmPoolConfig.model_fields))))


def augment_memseg(config: MemSegPoolConfig, samples: list[Sample] | None = None) -> Pool:
    """A pool of MemSeg anomalies on negatives of the training part.

    `samples` is the data set, split; None = read it and split it by the seed of the pool.
    """
    connect()
    samples = prepare(config) if samples is None else samples
    inputs = memseg_inputs(config, samples)
    name = f"memseg n={config.n_aug} seed={config.seed}"
    run = run_stage("augment", name, config, inputs, samples, lambda work: _make_memseg(config, samples, work))
    return open_pool(run.info.run_id)


def memseg_inputs(config: MemSegPoolConfig, samples: Sequence[Sample]) -> dict[str, str]:
    """Fingerprints of what a MemSeg pool is made from."""
    return {"data": fingerprint(samples)} | _texture_digests(config.textures)


def _texture_digests(folder: str) -> dict[str, str]:
    """Identity of a folder of textures; the procedural ones belong to the code."""
    if not folder:
        return {}
    textures = open_textures(folder)
    assert isinstance(textures, FolderTextures)
    return {"textures": " ".join(digests(textures.paths))}


def _make_memseg(config: MemSegPoolConfig, samples: list[Sample], work: Path) -> None:
    folder = work_pool(work)
    log_pool(folder, draw_memseg(config, samples, folder, config.seed))


def draw_memseg(config: MemSegPoolConfig, samples: Sequence[Sample], folder: Path, seed: int) -> list[Sample]:
    """`n_aug` MemSeg images and their manifest in a folder."""
    negatives = [sample for sample in samples if sample.split == "train" and sample.label == 0]
    return write_pool(negatives, folder, n=config.n_aug, geometry=config, seed=seed, config=config.memseg())
