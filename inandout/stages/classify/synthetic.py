"""The synthetic pictures that a classifier is trained with: of given pools, or made as `augment` makes them."""

from collections.abc import Sequence

import mlflow

from inandout.data.manifest import Sample, digests
from inandout.errors import InputError
from inandout.mixing import share_out
from inandout.review.updates import summarise
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.pools.augment import MemSegPoolConfig, augment_memseg
from inandout.stages.pools.decisions import kept, review_of
from inandout.stages.pools.inpaint import InpaintPoolConfig, augment_inpaint
from inandout.stages.pools.negatives import RoundTripConfig, good_drawing, good_pictures, send_through_vae
from inandout.stages.pools.pool import Pool, open_pool
from inandout.stages.pools.text2img import DdpmPoolConfig, augment_ddpm
from inandout.tracking import artifact_folder

LEARNED = "synthetic.txt"
"""Artifact of a classifier: the digest of every synthetic picture that it was trained with, a line each."""


def log_learned(trained_with: Sequence[Sample]) -> None:
    """Write `LEARNED`."""
    made = digests([sample.image for sample in trained_with if sample.origin != "real"])
    mlflow.log_text("".join(f"{picture}\n" for picture in made), LEARNED)


def learned(run_id: str) -> set[str]:
    """What `log_learned` wrote."""
    return set(artifact_folder(run_id, LEARNED).read_text(encoding="utf-8").split())


def synthetic_positives(config: ClassifyConfig) -> tuple[list[Sample], list[Sample]]:
    """The (MemSeg, DDPM) pools, as far as the mix needs them."""
    n_ddpm, n_memseg = share_out(config.n_aug, config.ddpm_ratio)
    return _memseg_pool(config, n_memseg) if n_memseg else [], _ddpm_pool(config, n_ddpm) if n_ddpm else []


def synthetic_negatives(config: ClassifyConfig, ddpm: Sequence[Sample]) -> list[Sample]:
    """One to stand against each diffusion picture of the mix."""
    n = share_out(config.n_aug, config.ddpm_ratio)[0]
    if config.negatives == "none" or n == 0:
        return []
    if config.negatives == "generated":
        return good_pictures(drawing_of_good(config, n)).samples
    shared = config.model_dump(include=set(RoundTripConfig.model_fields) - {"n_aug", "fresh"})
    return send_through_vae(RoundTripConfig(n_aug=n, **shared), ddpm[:n]).samples


def make_memseg_pool(config: ClassifyConfig, n: int) -> Pool:
    """`n` MemSeg pictures as `augment` makes them by default, or the run that did."""
    shared = config.model_dump(include=set(MemSegPoolConfig.model_fields) - {"n_aug"})
    return augment_memseg(MemSegPoolConfig(n_aug=n, **shared))


def make_diffusion_pool(config: ClassifyConfig, n: int) -> Pool:
    """`n` diffusion pictures as `augment` makes them by default, or the run that did."""
    pool = diffusion_pool(config, n)
    return augment_inpaint(pool) if isinstance(pool, InpaintPoolConfig) else augment_ddpm(pool)


def diffusion_pool(config: ClassifyConfig, n: int) -> DdpmPoolConfig:
    """What `make_diffusion_pool` makes; an `InpaintPoolConfig` where defects are drawn on good parts."""
    shared = config.model_dump(include=set(DdpmPoolConfig.model_fields) - {"n_aug", "fresh"})
    kind = InpaintPoolConfig if config.diffusion == "inpaint" else DdpmPoolConfig
    return kind(n_aug=n, **shared)


def drawing_of_good(config: ClassifyConfig, n: int) -> DdpmPoolConfig:
    """How `negatives=generated` draws its `n` good parts.

    Raises:
        InputError: nothing can draw good parts that would stand against the diffusion pictures.
    """
    if config.diffusion == "inpaint" and not config.ddpm_pool:
        raise InputError(
            "negatives = generated: defects are drawn on real good parts (diffusion = inpaint), and a whole picture is "
            "no good part against those; give negatives=roundtrip"
        )
    return good_drawing(diffusion_pool(config, n), config.ddpm_pool)


def given_pool(config: ClassifyConfig, name: str) -> list[Sample]:
    """A given pool; with `reviewed` what was decided on it is in its rows."""
    samples = open_pool(getattr(config, name))
    return review_of(samples)[0] if config.reviewed else samples


def _memseg_pool(config: ClassifyConfig, n: int) -> list[Sample]:
    return _usable(config, "memseg_pool", n) if config.memseg_pool else make_memseg_pool(config, n).samples


def _ddpm_pool(config: ClassifyConfig, n: int) -> list[Sample]:
    return _usable(config, "ddpm_pool", n) if config.ddpm_pool else make_diffusion_pool(config, n).samples


def _usable(config: ClassifyConfig, name: str, needed: int) -> list[Sample]:
    """The pictures of a given pool that may be trained with; with `reviewed` those that were kept, and it is logged."""
    if not config.reviewed:
        return given_pool(config, name)
    samples, pictures, decisions = review_of(open_pool(getattr(config, name)))
    summary = summarise(samples, pictures, decisions)
    mlflow.log_dict(summary, f"review_{name}.json")
    mlflow.log_params(
        {f"{name}_decided": sum(summary["together"].values()), f"{name}_kept": summary["together"]["keep"]}
    )
    mlflow.set_tag(f"inandout.reviewers_{name}", ", ".join(summary["reviewers"])[:500])
    return kept(name, getattr(config, name), samples, needed)
