"""Entry point `augment`: generate a pool of synthetic positives by MemSeg, diffusion or inpainting."""

from collections.abc import Sequence
from pathlib import Path

from inandout.data.manifest import Sample, digests, fingerprint
from inandout.data.prepare import prepare
from inandout.fingerprints import Identity
from inandout.memseg.pool import write_pool
from inandout.memseg.texture_bank import FolderTextures, open_textures
from inandout.stages.pools.config import (
    AugmentConfig,
    DdpmPoolConfig,
    InpaintPoolConfig,
    MemSegPoolConfig,
)
from inandout.stages.pools.pool import Pool, log_pool, open_pool, work_pool
from inandout.tracking.runs import run_stage
from inandout.tracking.store import connect


def augment(config: AugmentConfig) -> Pool:
    """Generate a pool of synthetic positives, or reuse the finished run."""
    pool = config.source_config()
    if isinstance(pool, MemSegPoolConfig):
        return augment_memseg(pool)
    return augment_diffusion(pool)


def augment_diffusion(config: DdpmPoolConfig, samples: list[Sample] | None = None) -> Pool:
    """Generate a pool of whole images, or of defects that are inpainted on good parts.

    Args:
        config: options of the pool.
        samples: the split dataset after the shot; None = read it and split it by the seed of the pool.
    """
    if isinstance(config, InpaintPoolConfig):
        from inandout.stages.pools.inpaint import augment_inpaint  # diffusers takes seconds to import

        return augment_inpaint(config, samples)
    from inandout.stages.pools.text2img import augment_ddpm

    return augment_ddpm(config, samples)


def augment_memseg(config: MemSegPoolConfig, samples: list[Sample] | None = None) -> Pool:
    """Generate a pool of MemSeg anomalies on negatives of the training part.

    Args:
        config: options of the pool.
        samples: the split dataset; None = read it and split it by the seed of the pool.
    """
    connect()
    samples = prepare(config.data, config.seed) if samples is None else samples
    name = f"augment memseg n={config.n_aug:03d} seed={config.seed:02d}"
    run = run_stage(
        _identity(config, samples), name, config.data.data, samples, lambda work: _make_memseg(config, samples, work)
    )
    return open_pool(run.info.run_id)


def memseg_fingerprint(config: MemSegPoolConfig, samples: Sequence[Sample]) -> str:
    """Return the fingerprint of the pool of `augment_memseg` without generating it."""
    return _identity(config, samples).fingerprint


def _identity(config: MemSegPoolConfig, samples: Sequence[Sample]) -> Identity:
    inputs = {"data": fingerprint(samples)} | _texture_digests(config.memseg.textures)
    return Identity("augment", __name__, config, inputs, ignored=("data", "textures"))


def _texture_digests(folder: str) -> dict[str, str]:
    """Return the digests of a folder of textures; nothing for procedural textures, which the code determines."""
    if not folder:
        return {}
    textures = open_textures(folder)
    assert isinstance(textures, FolderTextures)
    return {"textures": " ".join(digests(textures.paths))}


def _make_memseg(config: MemSegPoolConfig, samples: list[Sample], work: Path) -> None:
    folder = work_pool(work)
    rows = draw_memseg(config, samples, folder, config.seed)
    log_pool(folder, rows, samples, config.geometry)


def draw_memseg(config: MemSegPoolConfig, samples: Sequence[Sample], folder: Path, seed: int) -> list[Sample]:
    """Write `n_aug` MemSeg images and their manifest to `folder`; return the rows."""
    negatives = [sample for sample in samples if sample.split == "train" and sample.label == 0]
    return write_pool(negatives, folder, n=config.n_aug, geometry=config.geometry, seed=seed, config=config.memseg)
