"""The In&Out training mix: real images plus synthetic positives from diffusion and MemSeg (paper, section 4)."""

import math
from collections.abc import Sequence

from inandout.data.manifest import Origin, Sample, digests
from inandout.errors import InputError


def split_counts(n_aug: int, ddpm_ratio: float) -> tuple[int, int]:
    """Return the numbers of synthetic positives from (DDPM, MemSeg); the DDPM number is rounded down."""
    n_ddpm = math.floor(n_aug * ddpm_ratio + 1e-9)  # 100 * .29 is 28.999... in floating point and must give 29
    return n_ddpm, n_aug - n_ddpm


def mix(
    real: Sequence[Sample],
    memseg: Sequence[Sample],
    ddpm: Sequence[Sample],
    n_aug: int,
    ddpm_ratio: float,
    negatives: Sequence[Sample] = (),
) -> list[Sample]:
    """Return the training manifest: the training part of `real` and the first images of each pool.

    Args:
        real: a split manifest; only its training part is used.
        memseg: pool of MemSeg images.
        ddpm: pool of diffusion images, or of another generator.
        n_aug: number of synthetic positives, 0 or more.
        ddpm_ratio: share of the synthetic positives taken from `ddpm`, 0..1; see `split_counts` for the rounding.
        negatives: pool of synthetic negatives; as many are used as images from `ddpm`. May be empty.

    Raises:
        InputError: a pool is too small; an image has the wrong origin or label, was rejected in review, lacks its
            sources, or is or derives from a validation or test image; or a class of the mix is empty. An image of
            another generator (origin "other") needs no sources; see `inandout.data.duplicates.refuse_copies`.
    """
    training = [sample for sample in real if sample.split == "train"]
    real_negatives = sum(sample.label == 0 for sample in training)
    n_ddpm, n_memseg = split_counts(n_aug, ddpm_ratio)
    synthetic = _take(ddpm, ("ddpm", "inpaint", "other"), 1, n_ddpm) + _take(memseg, ("memseg",), 1, n_memseg)
    synthetic += _take(negatives, ("roundtrip", "ddpm"), 0, n_ddpm) if negatives else []
    _refuse_leaks(real, synthetic)
    mixed = [*training, *synthetic]
    positives = sum(sample.label for sample in mixed)
    if positives == 0:
        raise InputError("the training mix has no positives; use n_aug of 1 or more, or shot=few or shot=full")
    if real_negatives == 0:
        raise InputError("the training part has no negatives; add images of good parts to the data set")
    return mixed


def _take(pool: Sequence[Sample], origins: tuple[Origin, ...], label: int, count: int) -> list[Sample]:
    if len(pool) < count:
        raise InputError(f"{count} {origins[0]} images are needed, but the pool has {len(pool)}; make a larger pool")
    selected = list(pool[:count])
    for sample in selected:
        if sample.origin not in origins or sample.label != label:
            kind = f"{origins[0]} {'positives' if label else 'negatives'}"
            raise InputError(
                f"{sample.image}: has origin {sample.origin!r} and label {sample.label} in a pool of {kind}; "
                "remove its row or use another pool"
            )
        if sample.review == "reject":
            raise InputError(f"{sample.image}: was rejected in review; remove its row from the pool")
    return [sample.with_(split="train") for sample in selected]


def _refuse_leaks(real: Sequence[Sample], synthetic: Sequence[Sample]) -> None:
    """Raise an InputError if a synthetic image is a real image, derives from a held-out one or lacks its sources."""
    if not synthetic:
        return
    contents = dict(zip(digests([sample.image for sample in real]), real, strict=True))
    allowed = {content for content, sample in contents.items() if sample.split == "train"}
    for sample, content in zip(synthetic, digests([sample.image for sample in synthetic]), strict=True):
        if not sample.sources and sample.origin != "other":
            raise InputError(f"{sample.image}: its row lists no source images (sources); make the pool again")
        if content in contents:
            raise InputError(f"{sample.image}: duplicates {contents[content].image} of the data set; remove its row")
        if not set(sample.sources) <= allowed:
            raise InputError(
                f"{sample.image}: was made from an image outside the training part; make the pool again with the same "
                "data, val_share and seed"
            )
