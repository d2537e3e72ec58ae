"""The synthetic images that a classifier is trained with: of given pools, or made as `augment` makes them."""

from collections.abc import Sequence

import mlflow

from inandout.data.manifest import Sample, digests
from inandout.diffusion.sample.sampler import SamplingConfig
from inandout.errors import InputError
from inandout.memseg.config import MaskConfig
from inandout.review.updates import summarise
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.pools.augment import MemSegPoolConfig, augment_memseg
from inandout.stages.pools.decisions import kept, review_of
from inandout.stages.pools.inpaint import InpaintPoolConfig, augment_inpaint, inpainting
from inandout.stages.pools.negatives import RoundTripConfig, good_images, good_pool_config, send_through_vae
from inandout.stages.pools.pool import Pool, open_pool
from inandout.stages.pools.text2img import DdpmPoolConfig, DrawingConfig, augment_ddpm
from inandout.tracking.runs import artifact_folder

TRAINING_DIGESTS = "synthetic.txt"
"""Artifact of a classifier: the digest of every synthetic image that it was trained with, a line each."""


def log_training_digests(trained_with: Sequence[Sample]) -> None:
    """Write `TRAINING_DIGESTS`."""
    made = digests([sample.image for sample in trained_with if sample.origin != "real"])
    mlflow.log_text("".join(f"{image}\n" for image in made), TRAINING_DIGESTS)


def training_digests(run_id: str) -> set[str]:
    """What `log_training_digests` wrote."""
    return set(artifact_folder(run_id, TRAINING_DIGESTS).read_text(encoding="utf-8").split())


def synthetic_positives(config: ClassifyConfig) -> tuple[list[Sample], list[Sample]]:
    """The (MemSeg, DDPM) pools, as far as the mix needs them."""
    n_ddpm, n_memseg = config.shares()
    return _memseg_pool(config, n_memseg) if n_memseg else [], _ddpm_pool(config, n_ddpm) if n_ddpm else []


def synthetic_negatives(config: ClassifyConfig, ddpm: Sequence[Sample]) -> list[Sample]:
    """One to stand against each diffusion image of the mix."""
    n = config.shares()[0]
    if config.mix.negatives == "none" or n == 0:
        return []
    if config.mix.negatives == "generated":
        return good_images(good_image_config(config, n)).samples
    trips = RoundTripConfig(data=config.data, geometry=config.geometry, base=config.base, seed=config.seed, n_aug=n)
    return send_through_vae(trips, ddpm[:n]).samples


def make_memseg_pool(config: ClassifyConfig, n: int) -> Pool:
    """`n` MemSeg images as `augment` makes them by default, or the run that did."""
    return augment_memseg(
        MemSegPoolConfig(data=config.data, geometry=config.geometry, seed=config.seed, n_aug=n, fresh=config.fresh)
    )


def make_diffusion_pool(config: ClassifyConfig, n: int) -> Pool:
    """`n` diffusion images as `augment` makes them by default, or the run that did."""
    pool = diffusion_pool_config(config, n)
    return augment_inpaint(pool) if isinstance(pool, InpaintPoolConfig) else augment_ddpm(pool)


def diffusion_pool_config(config: ClassifyConfig, n: int) -> DdpmPoolConfig:
    """What `make_diffusion_pool` makes; an `InpaintPoolConfig` where defects are drawn on good parts."""
    pool = DdpmPoolConfig(
        data=config.data, scenario=config.scenario, geometry=config.geometry, base=config.base,
        sampling=SamplingConfig(guidance=config.guidance), drawing=DrawingConfig(alpha=config.alpha),
        seed=config.seed, n_aug=n,
    )  # fmt: skip
    return inpainting(pool, MaskConfig(), "perlin") if config.diffusion == "inpaint" else pool


def good_image_config(config: ClassifyConfig, n: int) -> DdpmPoolConfig:
    """How `negatives=generated` draws its `n` good parts.

    Raises:
        InputError: nothing can draw good parts that would stand against the diffusion images.
    """
    if config.diffusion == "inpaint" and not config.ddpm_pool:
        raise InputError(
            "negatives = generated: defects are drawn on real good parts (diffusion = inpaint), and a whole image is "
            "no good part against those; give negatives=roundtrip"
        )
    return good_pool_config(diffusion_pool_config(config, n), config.ddpm_pool)


def given_pool(config: ClassifyConfig, name: str) -> list[Sample]:
    """A given pool; with `reviewed` what was decided on it is in its rows."""
    samples = open_pool(getattr(config, name))
    return review_of(samples)[0] if config.reviewed else samples


def _memseg_pool(config: ClassifyConfig, n: int) -> list[Sample]:
    return _usable(config, "memseg_pool", n) if config.memseg_pool else make_memseg_pool(config, n).samples


def _ddpm_pool(config: ClassifyConfig, n: int) -> list[Sample]:
    return _usable(config, "ddpm_pool", n) if config.ddpm_pool else make_diffusion_pool(config, n).samples


def _usable(config: ClassifyConfig, name: str, needed: int) -> list[Sample]:
    """The images of a given pool that may be trained with; with `reviewed` those that were kept, and it is logged."""
    if not config.reviewed:
        return given_pool(config, name)
    samples, images, decisions = review_of(open_pool(getattr(config, name)))
    summary = summarise(samples, images, decisions)
    mlflow.log_dict(summary, f"review_{name}.json")
    mlflow.log_params(
        {f"{name}_decided": sum(summary["together"].values()), f"{name}_kept": summary["together"]["keep"]}
    )
    mlflow.set_tag(f"inandout.reviewers_{name}", ", ".join(summary["reviewers"])[:500])
    return kept(name, getattr(config, name), samples, needed)
