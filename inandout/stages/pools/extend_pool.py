"""Entry point `extend-pool`: add images to a reviewed pool, with new seeds and the certified prompts."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow
from pydantic import Field

from inandout.data.manifest import Sample, digests, fingerprint, write_manifest
from inandout.data.prepare import prepare, prepare_shot
from inandout.diffusion.sample.sampler import image_seed
from inandout.errors import InputError
from inandout.fingerprints import Identity
from inandout.options import Fresh, StageConfig
from inandout.review.decisions import Decision
from inandout.review.session import identity_of
from inandout.review.summary import certified_prompts
from inandout.stages.pools.augment import MemSegPoolConfig, draw_memseg
from inandout.stages.pools.decisions import DECISIONS, POOL_TAG, review_of
from inandout.stages.pools.pool import Pool, log_pool, open_pool, pool_folder, read_pool, work_pool
from inandout.stages.pools.text2img import DdpmPoolConfig, draw_ddpm, drawn_with, open_diffusion_setup
from inandout.tracking.runs import read_config, run_stage
from inandout.tracking.store import connect


class ExtendPoolConfig(StageConfig):
    """Options of `extend-pool`."""

    pool: str = Field("", description="run id of a pool that was reviewed")
    n_aug: int = Field(20, ge=1, le=100_000, description="new images to draw, which are to be reviewed in turn")
    fresh: Fresh = False


class ReviewedPool(NamedTuple):
    """A pool and the decisions on it."""

    folder: Path
    rows: list[Sample]
    decisions: list[Decision]


def extend_pool(config: ExtendPoolConfig) -> Pool:
    """Generate a pool that holds all images of a reviewed pool, the decisions on them, and `n_aug` new images.

    New images use the configuration of the reviewed pool with new seeds and only the prompts that have a kept image.

    Raises:
        InputError: `pool` is not a run id, or review kept no image.
    """
    if not config.pool or Path(config.pool).is_dir():
        raise InputError(f"pool = {config.pool!r}: give the run id of a pool, which knows how it was drawn")
    connect()
    folder = pool_folder(config.pool).resolve()
    rows, _, decisions = review_of(read_pool(folder).samples)
    reviewed = ReviewedPool(folder, rows, decisions)
    prompts = certified_prompts(rows)
    if not prompts:
        raise InputError(f"pool = {config.pool}: no image was kept in a review that was finished; press Finish there")
    drawn = _asked_again(config, rows[0].origin, prompts)
    if isinstance(drawn, DdpmPoolConfig):
        samples = prepare_shot(drawn.data, drawn.scenario, drawn.seed)
    else:
        samples = prepare(drawn.data, drawn.seed)
    inputs = {"data": fingerprint(samples), "pool": fingerprint(rows)}
    identity = Identity("topup", __name__, drawn, inputs, ignored=["data"])
    name = f"{rows[0].origin} {len(rows)} and {config.n_aug} more"
    run = run_stage(identity, name, drawn.data.data, samples, lambda work: _extend(drawn, samples, reviewed, work))
    print(
        f"{len(rows)} images with what was decided on them, and {config.n_aug} new ones; review those with "
        f"`python -m inandout review --pool {run.info.run_id}`"
    )
    return open_pool(run.info.run_id)


def _asked_again(config: ExtendPoolConfig, origin: str, prompts: Sequence[str]) -> DdpmPoolConfig | MemSegPoolConfig:
    """How the pool was made, for other prompts and another number."""
    changes = {"n_aug": config.n_aug, "fresh": config.fresh}
    if origin == "memseg":
        known = read_config(config.pool)
        try:
            return MemSegPoolConfig.from_flat(**known | changes)
        except ValueError as error:
            raise InputError(f"pool = {config.pool}: is not a pool as augment makes it; give the one before") from error
    drawn = drawn_with(config.pool)
    if drawn is None:
        raise InputError(f"pool = {config.pool}: its run does not say what it was drawn with; make the pool anew")
    return drawn.with_drawing(prompts="|".join(prompts)).model_copy(update=changes)


def _extend(
    drawn: DdpmPoolConfig | MemSegPoolConfig, samples: Sequence[Sample], reviewed: ReviewedPool, work: Path
) -> None:  # fmt: skip
    folder = work_pool(work)
    shutil.copytree(reviewed.folder, folder, dirs_exist_ok=True)
    old = [_moved(row, reviewed.folder, folder) for row in reviewed.rows]
    new = _draw(drawn, samples, old, folder / f"from-{len(old):06d}")
    rows = [*old, *new]
    write_manifest([row.with_(review="") for row in rows], folder / "manifest.csv")
    mlflow.set_tag(POOL_TAG, identity_of(digests([row.image for row in rows])))
    mlflow.log_text("".join(one.model_dump_json(ensure_ascii=True) + "\n" for one in reviewed.decisions), DECISIONS)
    log_pool(folder, rows)


def _draw(
    drawn: DdpmPoolConfig | MemSegPoolConfig, samples: Sequence[Sample], old: Sequence[Sample], folder: Path
) -> list[Sample]:  # fmt: skip
    """Draw new images, with a seed that no earlier pool used."""
    folder.mkdir(exist_ok=True)
    seed = image_seed(drawn.seed, len(old))
    if isinstance(drawn, MemSegPoolConfig):
        return draw_memseg(drawn, samples, folder, seed)
    setup = open_diffusion_setup(drawn)
    if (setup.base.fingerprint, setup.adapter.fingerprint) != (old[0].base, old[0].adapter):
        raise InputError(
            f"base {drawn.base.base} and adapter {drawn.drawing.adapter}: are not those that the pool was drawn "
            "with; put them back, or make the pool anew"
        )
    return draw_ddpm(setup, samples, folder, seed, old)


def _moved(row: Sample, before: Path, now: Path) -> Sample:
    mask = now / row.mask.relative_to(before) if row.mask else None
    return row.with_(image=now / row.image.relative_to(before), mask=mask)
