"""Synthetic training images of a classifier: read from existing pools, or generated with the defaults of `augment`.

The stages that draw with diffusion are imported where they are needed: their libraries take seconds to import.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow

from inandout.data.manifest import Sample, digests, write_manifest
from inandout.data.prepare import CheckedData
from inandout.errors import InputError
from inandout.review.updates import summarise
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.pools.augment import augment_diffusion, augment_memseg
from inandout.stages.pools.config import DdpmPoolConfig, InpaintPoolConfig, MemSegPoolConfig, RoundTripConfig
from inandout.stages.pools.decisions import kept_rows, load_review
from inandout.stages.pools.pool import Pool, open_pool
from inandout.tracking.runs import artifact_folder

TRAINING_DIGESTS = "synthetic.txt"
"""Artifact of `classify`: digests of the synthetic training images, one per line."""
SYNTHETIC_ROWS = "synthetic.csv"
"""Artifact of `classify`: the manifest of the synthetic training images, if there are any."""


def log_synthetic(training: Sequence[Sample]) -> None:
    """Log `TRAINING_DIGESTS` and `SYNTHETIC_ROWS`."""
    synthetic = [sample for sample in training if sample.origin != "real"]
    contents = digests([sample.image for sample in synthetic])
    mlflow.log_text("".join(f"{digest}\n" for digest in contents), TRAINING_DIGESTS)
    if synthetic:
        with tempfile.TemporaryDirectory() as folder:
            write_manifest(synthetic, Path(folder) / SYNTHETIC_ROWS)
            mlflow.log_artifact(str(Path(folder) / SYNTHETIC_ROWS))


def training_digests(run_id: str) -> set[str]:
    """Read the digests that `log_synthetic` logged."""
    return set(artifact_folder(run_id, TRAINING_DIGESTS).read_text(encoding="utf-8").split())


class RequiredPools(NamedTuple):
    """Configurations of the pools to generate for a classifier; None if the pool exists or the mix does not use it."""

    memseg: MemSegPoolConfig | None
    diffusion: DdpmPoolConfig | None
    """An `InpaintPoolConfig` if diffusion=inpaint or diag."""
    good: DdpmPoolConfig | None
    """Good parts drawn by diffusion, if negatives=generated."""
    round_trip: RoundTripConfig | None
    """Good parts encoded and decoded by the VAE, if negatives=roundtrip."""


def required_pools(config: ClassifyConfig) -> RequiredPools:
    """Return the pools that `classify` generates for a classifier.

    Raises:
        InputError: see `good_image_config`.
    """
    n_ddpm, n_memseg = config.shares()
    negatives = config.mix.negatives if n_ddpm else "none"
    return RequiredPools(
        memseg=memseg_pool(config, n_memseg) if n_memseg and not config.memseg_pool else None,
        diffusion=config.diffusion_pool(n_ddpm) if n_ddpm and not config.ddpm_pool else None,
        good=good_image_config(config, n_ddpm) if negatives == "generated" else None,
        round_trip=_round_trip(config, n_ddpm) if negatives == "roundtrip" else None,
    )


def synthetic_positives(config: ClassifyConfig, data: CheckedData) -> tuple[list[Sample], list[Sample]]:
    """Return the rows of the (MemSeg, diffusion) pools; an unused pool is empty."""
    n_ddpm, n_memseg = config.shares()
    pools = required_pools(config)
    memseg = make_pool(pools.memseg, data).samples if pools.memseg else _load_pool_rows(config, "memseg_pool", n_memseg)
    ddpm = make_pool(pools.diffusion, data).samples if pools.diffusion else _load_pool_rows(config, "ddpm_pool", n_ddpm)
    return memseg, ddpm


def synthetic_negatives(config: ClassifyConfig, data: CheckedData, ddpm: Sequence[Sample]) -> list[Sample]:
    """Return one synthetic negative for each diffusion image of the mix."""
    pools = required_pools(config)
    if not (pools.good or pools.round_trip):
        return []
    from inandout.stages.pools.negatives import good_images, send_through_vae, source_identity

    if pools.good:
        # An existing pool records the dataset that its good parts are drawn for.
        samples = None if config.ddpm_pool else data.take_shot(pools.good.data, pools.good.scenario, pools.good.seed)
        return good_images(pools.good, samples).samples
    assert pools.round_trip
    positives = ddpm[: pools.round_trip.n_aug]
    source = pool_source_identity(pools.diffusion, data) if pools.diffusion else source_identity(positives)
    split = data.split(pools.round_trip.data, pools.round_trip.seed)
    return send_through_vae(pools.round_trip, split, positives, source).samples


def pool_source_identity(config: DdpmPoolConfig, data: CheckedData) -> str:
    """Return `source_identity` of the positives of `config` without generating them; "" for whole images."""
    return diffusion_fingerprint(config, data) if isinstance(config, InpaintPoolConfig) else ""


def diffusion_fingerprint(config: DdpmPoolConfig, data: CheckedData) -> str:
    """Return the fingerprint of a diffusion pool without generating it."""
    samples = data.take_shot(config.data, config.scenario, config.seed)
    if isinstance(config, InpaintPoolConfig):
        from inandout.stages.pools.inpaint import inpaint_fingerprint

        return inpaint_fingerprint(config, samples)
    from inandout.stages.pools.text2img import ddpm_fingerprint

    return ddpm_fingerprint(config, samples)


def make_pool(config: MemSegPoolConfig | DdpmPoolConfig, data: CheckedData) -> Pool:
    """Generate a pool of synthetic positives, or reuse the finished run."""
    if isinstance(config, MemSegPoolConfig):
        return augment_memseg(config, data.split(config.data, config.seed))
    return augment_diffusion(config, data.take_shot(config.data, config.scenario, config.seed))


def memseg_pool(config: ClassifyConfig, n: int) -> MemSegPoolConfig:
    """Return the configuration of `n` MemSeg images, with the defaults of `augment`."""
    return MemSegPoolConfig(data=config.data, geometry=config.geometry, seed=config.seed, n_aug=n, fresh=config.fresh)


def _round_trip(config: ClassifyConfig, n: int) -> RoundTripConfig:
    return RoundTripConfig(
        data=config.data, geometry=config.geometry, base=config.base, hardware=config.hardware, seed=config.seed,
        n_aug=n,
    )  # fmt: skip


def good_image_config(config: ClassifyConfig, n: int) -> DdpmPoolConfig:
    """Return the configuration of `n` good parts for `negatives=generated`.

    Raises:
        InputError: diffusion=inpaint or diag, or the adapter of the pool cannot draw good parts.
    """
    if config.diffusion != "ddpm" and not config.ddpm_pool:
        raise InputError(
            "negatives = generated: whole generated images do not match defects inpainted on real good parts "
            f"(diffusion = {config.diffusion}); give negatives=roundtrip"
        )
    from inandout.stages.pools.negatives import good_pool_config

    return good_pool_config(config.diffusion_pool(n), config.ddpm_pool)


def pool_rows(config: ClassifyConfig, name: str) -> list[Sample]:
    """Return the rows of the pool that option `name` gives, with review decisions if `reviewed`."""
    samples = open_pool(getattr(config, name)).samples
    return load_review(samples)[0] if config.reviewed else samples


def _load_pool_rows(config: ClassifyConfig, name: str, needed: int) -> list[Sample]:
    """Return the training rows of an existing pool; with `reviewed`, log the review and return kept images only."""
    if not needed:
        return []
    if not config.reviewed:
        return pool_rows(config, name)
    samples, images, decisions = load_review(open_pool(getattr(config, name)).samples)
    summary = summarise(samples, images, decisions)
    mlflow.log_dict(summary, f"review_{name}.json")
    mlflow.log_params(
        {f"{name}_decided": sum(summary["together"].values()), f"{name}_kept": summary["together"]["keep"]}
    )
    mlflow.set_tag(f"inandout.reviewers_{name}", ", ".join(summary["reviewers"])[:500])
    return kept_rows(name, getattr(config, name), samples, needed)
