"""Entry point `extend-pool`: add images to a reviewed pool, with new seeds and the certified prompts."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow

from inandout.data.manifest import Sample, digests, fingerprint, write_manifest
from inandout.data.prepare import prepare, prepare_shot
from inandout.errors import InputError
from inandout.fingerprints import Identity
from inandout.review.decisions import Decision
from inandout.review.session import identity_of
from inandout.review.summary import certified_prompts
from inandout.stages.pools.augment import draw_memseg
from inandout.stages.pools.config import DdpmPoolConfig, ExtendPoolConfig, MemSegPoolConfig
from inandout.stages.pools.decisions import DECISIONS, POOL_TAG, load_review
from inandout.stages.pools.drawing_config import read_drawing_config
from inandout.stages.pools.pool import Pool, log_pool, open_pool, pool_folder, read_pool, work_pool
from inandout.tracking.runs import read_config, run_stage
from inandout.tracking.store import connect


class ReviewedPool(NamedTuple):
    """A pool and the decisions on it."""

    folder: Path
    rows: list[Sample]
    decisions: list[Decision]


def extend_pool(config: ExtendPoolConfig) -> Pool:
    """Generate a pool that holds all images of a reviewed pool, the decisions on them, and `n_aug` new images.

    New images use the configuration of the reviewed pool with new seeds and only the prompts that have a kept image.

    Raises:
        InputError: `pool` is not a run id, its images are inpainted, or review kept no image.
    """
    if not config.pool or Path(config.pool).is_dir():
        raise InputError(f"pool = {config.pool!r}: is not a run id; give the run id of a pool")
    connect()
    folder = pool_folder(config.pool).resolve()
    rows, _, decisions = load_review(read_pool(folder).samples)
    if rows[0].origin == "inpaint":
        raise InputError(
            f"pool = {config.pool}: an inpainted pool cannot be extended; generate a larger pool with augment and "
            "review it"
        )
    reviewed = ReviewedPool(folder, rows, decisions)
    prompts = certified_prompts(rows)
    if not prompts:
        raise InputError(f"pool = {config.pool}: no finished review kept an image; keep one in review and press Finish")
    extension = _extension_config(config, rows[0].origin, prompts)
    if isinstance(extension, DdpmPoolConfig):
        samples = prepare_shot(extension.data, extension.scenario, extension.seed)
    else:
        samples = prepare(extension.data, extension.seed)
    inputs = {"data": fingerprint(samples), "pool": fingerprint(rows)}
    identity = Identity("topup", __name__, extension, inputs, ignored=["data"])
    name = f"extend-pool {rows[0].origin} {len(rows)} and {config.n_aug} more"
    run = run_stage(
        identity, name, extension.data.data, samples, lambda work: _extend(extension, samples, reviewed, work)
    )
    print(
        f"{len(rows)} reviewed and {config.n_aug} new images; review the new images with "
        f"`python -m inandout review --pool {run.info.run_id}`"
    )
    return open_pool(run.info.run_id)


def _extension_config(
    config: ExtendPoolConfig, origin: str, prompts: Sequence[str]
) -> DdpmPoolConfig | MemSegPoolConfig:
    """Return the configuration of the reviewed pool with `prompts` and the new number of images."""
    changes = {"n_aug": config.n_aug, "fresh": config.fresh}
    if origin == "memseg":
        options = read_config(config.pool)
        try:
            return MemSegPoolConfig.from_flat(**options | changes)
        except ValueError as error:
            raise InputError(
                f"pool = {config.pool}: is not a run of augment; give the run id of the augment that generated the pool"
            ) from error
    pool_config = read_drawing_config(config.pool)
    if pool_config is None:
        raise InputError(f"pool = {config.pool}: its run does not record how it was drawn; generate the pool again")
    return pool_config.with_drawing(prompts="|".join(prompts)).model_copy(
        update=changes | {"hardware": config.hardware}
    )


def _extend(
    extension: DdpmPoolConfig | MemSegPoolConfig, samples: Sequence[Sample], reviewed: ReviewedPool, work: Path
) -> None:  # fmt: skip
    folder = work_pool(work)
    shutil.copytree(reviewed.folder, folder, dirs_exist_ok=True)
    old = [_moved(row, reviewed.folder, folder) for row in reviewed.rows]
    new = _draw(extension, samples, old, folder / f"from-{len(old):06d}")
    rows = [*old, *new]
    write_manifest([row.with_(review="") for row in rows], folder / "manifest.csv")
    mlflow.set_tag(POOL_TAG, identity_of(digests([row.image for row in rows])))
    mlflow.log_text(
        "".join(decision.model_dump_json(ensure_ascii=True) + "\n" for decision in reviewed.decisions), DECISIONS
    )
    log_pool(folder, rows, samples, extension.geometry)


def _draw(
    extension: DdpmPoolConfig | MemSegPoolConfig, samples: Sequence[Sample], old: Sequence[Sample], folder: Path
) -> list[Sample]:  # fmt: skip
    """Draw new images, with a seed that no earlier pool used."""
    from inandout.diffusion.sample.sampler import image_seed  # diffusers takes seconds to import
    from inandout.stages.pools.text2img import draw_ddpm, open_diffusion_setup

    folder.mkdir(exist_ok=True)
    seed = image_seed(extension.seed, len(old))
    if isinstance(extension, MemSegPoolConfig):
        return draw_memseg(extension, samples, folder, seed)
    setup = open_diffusion_setup(extension)
    if (setup.base.fingerprint, setup.adapter.fingerprint) != (old[0].base, old[0].adapter):
        raise InputError(
            f"base {extension.base.base} and adapter {extension.drawing.adapter} differ from those that drew the "
            "pool; restore them, or generate the pool again"
        )
    return draw_ddpm(setup, samples, folder, seed, old)


def _moved(row: Sample, before: Path, now: Path) -> Sample:
    mask = now / row.mask.relative_to(before) if row.mask else None
    return row.with_(image=now / row.image.relative_to(before), mask=mask)
