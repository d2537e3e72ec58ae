"""Synthetic training images of a classifier: read from existing pools, or generated with the defaults of `augment`."""

from collections.abc import Sequence
from typing import NamedTuple

import mlflow

from inandout.data.manifest import Sample, digests
from inandout.data.prepare import CheckedData
from inandout.diffusion.sample.sampler import SamplingConfig
from inandout.errors import InputError
from inandout.memseg.config import MaskConfig
from inandout.review.updates import summarise
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.pools.augment import MemSegPoolConfig, augment_memseg
from inandout.stages.pools.decisions import kept, review_of
from inandout.stages.pools.inpaint import InpaintPoolConfig, augment_inpaint, inpaint_fingerprint, inpainting
from inandout.stages.pools.negatives import RoundTripConfig, good_images, good_pool_config, send_through_vae, source_of
from inandout.stages.pools.pool import Pool, open_pool
from inandout.stages.pools.text2img import DdpmPoolConfig, DrawingConfig, augment_ddpm, ddpm_fingerprint
from inandout.tracking.runs import artifact_folder

TRAINING_DIGESTS = "synthetic.txt"
"""Artifact of `classify`: digests of the synthetic training images, one per line."""


def log_training_digests(trained_with: Sequence[Sample]) -> None:
    """Log `TRAINING_DIGESTS`."""
    made = digests([sample.image for sample in trained_with if sample.origin != "real"])
    mlflow.log_text("".join(f"{image}\n" for image in made), TRAINING_DIGESTS)


def training_digests(run_id: str) -> set[str]:
    """Read the digests that `log_training_digests` logged."""
    return set(artifact_folder(run_id, TRAINING_DIGESTS).read_text(encoding="utf-8").split())


class MadePools(NamedTuple):
    """Configurations of the pools made for a classifier; None for one that is given or that the mix leaves out."""

    memseg: MemSegPoolConfig | None
    diffusion: DdpmPoolConfig | None
    """An `InpaintPoolConfig` where defects are drawn on good parts."""
    good: DdpmPoolConfig | None
    """Drawn good parts: negatives=generated."""
    round_trip: RoundTripConfig | None
    """Real good parts through the VAE: negatives=roundtrip."""


def made_pools(config: ClassifyConfig) -> MadePools:
    """What is made for a classifier, which a plan prices and `classify` makes.

    Raises:
        InputError: see `good_image_config`.
    """
    n_ddpm, n_memseg = config.shares()
    negatives = config.mix.negatives if n_ddpm else "none"
    return MadePools(
        memseg=memseg_pool(config, n_memseg) if n_memseg and not config.memseg_pool else None,
        diffusion=diffusion_pool_config(config, n_ddpm) if n_ddpm and not config.ddpm_pool else None,
        good=good_image_config(config, n_ddpm) if negatives == "generated" else None,
        round_trip=_round_trip(config, n_ddpm) if negatives == "roundtrip" else None,
    )


def synthetic_positives(config: ClassifyConfig, data: CheckedData) -> tuple[list[Sample], list[Sample]]:
    """Return the rows of the (MemSeg, diffusion) pools; an unused pool is empty."""
    n_ddpm, n_memseg = config.shares()
    made = made_pools(config)
    memseg = make_pool(made.memseg, data).samples if made.memseg else _given(config, "memseg_pool", n_memseg)
    ddpm = make_pool(made.diffusion, data).samples if made.diffusion else _given(config, "ddpm_pool", n_ddpm)
    return memseg, ddpm


def synthetic_negatives(config: ClassifyConfig, data: CheckedData, ddpm: Sequence[Sample]) -> list[Sample]:
    """Return one synthetic negative for each diffusion image of the mix."""
    made = made_pools(config)
    if made.good:
        # A given pool says itself which data set its good parts are drawn for.
        samples = None if config.ddpm_pool else data.take_shot(made.good.data, made.good.scenario, made.good.seed)
        return good_images(made.good, samples).samples
    if made.round_trip:
        positives = ddpm[: made.round_trip.n_aug]
        source = made_source(made.diffusion, data) if made.diffusion else source_of(positives)
        split = data.split(made.round_trip.data, made.round_trip.seed)
        return send_through_vae(made.round_trip, split, positives, source).samples
    return []


def made_source(config: DdpmPoolConfig, data: CheckedData) -> str:
    """`source_of` the positives of a pool that is made, told without making it: nothing of whole images decides."""
    return diffusion_fingerprint(config, data) if isinstance(config, InpaintPoolConfig) else ""


def diffusion_fingerprint(config: DdpmPoolConfig, data: CheckedData) -> str:
    """Return the fingerprint of a diffusion pool without generating it."""
    samples = data.take_shot(config.data, config.scenario, config.seed)
    if isinstance(config, InpaintPoolConfig):
        return inpaint_fingerprint(config, samples)
    return ddpm_fingerprint(config, samples)


def make_pool(config: MemSegPoolConfig | DdpmPoolConfig, data: CheckedData) -> Pool:
    """Generate a pool of synthetic positives, or reuse the finished run."""
    if isinstance(config, MemSegPoolConfig):
        return augment_memseg(config, data.split(config.data, config.seed))
    samples = data.take_shot(config.data, config.scenario, config.seed)
    if isinstance(config, InpaintPoolConfig):
        return augment_inpaint(config, samples)
    return augment_ddpm(config, samples)


def memseg_pool(config: ClassifyConfig, n: int) -> MemSegPoolConfig:
    """Return the configuration of `n` MemSeg images, with the defaults of `augment`."""
    return MemSegPoolConfig(data=config.data, geometry=config.geometry, seed=config.seed, n_aug=n, fresh=config.fresh)


def diffusion_pool_config(config: ClassifyConfig, n: int) -> DdpmPoolConfig:
    """Return the configuration of `n` diffusion images, with the defaults of `augment`."""
    pool = DdpmPoolConfig(
        data=config.data, scenario=config.scenario, geometry=config.geometry, base=config.base,
        sampling=SamplingConfig(guidance=config.guidance), drawing=DrawingConfig(alpha=config.alpha),
        seed=config.seed, n_aug=n,
    )  # fmt: skip
    return inpainting(pool, MaskConfig(), "perlin") if config.diffusion == "inpaint" else pool


def _round_trip(config: ClassifyConfig, n: int) -> RoundTripConfig:
    return RoundTripConfig(data=config.data, geometry=config.geometry, base=config.base, seed=config.seed, n_aug=n)


def good_image_config(config: ClassifyConfig, n: int) -> DdpmPoolConfig:
    """Return the configuration of `n` good parts for `negatives=generated`.

    Raises:
        InputError: diffusion=inpaint, or the adapter of the pool cannot draw good parts.
    """
    if config.diffusion == "inpaint" and not config.ddpm_pool:
        raise InputError(
            "negatives = generated: defects are drawn on real good parts (diffusion = inpaint), and a whole image is "
            "no good part against those; give negatives=roundtrip"
        )
    return good_pool_config(diffusion_pool_config(config, n), config.ddpm_pool)


def given_rows(config: ClassifyConfig, name: str) -> list[Sample]:
    """The rows of a given pool; with `reviewed` what was decided on it is in its rows."""
    samples = open_pool(getattr(config, name)).samples
    return review_of(samples)[0] if config.reviewed else samples


def _given(config: ClassifyConfig, name: str, needed: int) -> list[Sample]:
    """The images of a given pool that may be trained with; with `reviewed` those that were kept, and it is logged."""
    if not needed:
        return []
    if not config.reviewed:
        return given_rows(config, name)
    samples, images, decisions = review_of(open_pool(getattr(config, name)).samples)
    summary = summarise(samples, images, decisions)
    mlflow.log_dict(summary, f"review_{name}.json")
    mlflow.log_params(
        {f"{name}_decided": sum(summary["together"].values()), f"{name}_kept": summary["together"]["keep"]}
    )
    mlflow.set_tag(f"inandout.reviewers_{name}", ", ".join(summary["reviewers"])[:500])
    return kept(name, getattr(config, name), samples, needed)
