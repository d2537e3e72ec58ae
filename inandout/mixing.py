"""The In&Out mix: real images plus `n_aug` synthetic positives, a share of them from diffusion (paper, section 4)."""

import math
from collections.abc import Sequence

from inandout.data.manifest import Origin, Sample, digests
from inandout.errors import InputError


def split_counts(n_aug: int, ddpm_ratio: float) -> tuple[int, int]:
    """How many synthetic positives come from (DDPM, MemSeg); the DDPM part is rounded down."""
    n_ddpm = math.floor(n_aug * ddpm_ratio + 1e-9)  # 100 * .29 is 28.999... in floating point, and means 29
    return n_ddpm, n_aug - n_ddpm


def mix(
    real: Sequence[Sample],
    memseg: Sequence[Sample],
    ddpm: Sequence[Sample],
    n_aug: int,
    ddpm_ratio: float,
    negatives: Sequence[Sample] = (),
) -> list[Sample]:
    """Training manifest: the training part of `real` and the first images of each pool.

    Args:
        real: a split manifest; only its training part is used.
        memseg: pool of MemSeg images.
        ddpm: pool of diffusion images.
        n_aug: number of synthetic positives, 0 or more.
        ddpm_ratio: share of them from `ddpm`, 0..1; see `split_counts` for the rounding.
        negatives: none, or a pool of synthetic negatives, of which as many are taken as images of `ddpm`.

    Raises:
        InputError: a pool is too small, holds an image that is not of its kind and label, was rejected in review, is
            a validation or test image or was made from one, or does not say what it was made from; or the mix would
            leave a class empty.
    """
    training = [sample for sample in real if sample.split == "train"]
    goods = sum(sample.label == 0 for sample in training)
    n_ddpm, n_memseg = split_counts(n_aug, ddpm_ratio)
    synthetic = _take(ddpm, ("ddpm", "inpaint"), 1, n_ddpm) + _take(memseg, ("memseg",), 1, n_memseg)
    synthetic += _take(negatives, ("roundtrip", "ddpm"), 0, n_ddpm) if negatives else []
    _refuse_leaks(real, synthetic)
    mixed = [*training, *synthetic]
    positives = sum(sample.label for sample in mixed)
    if positives == 0:
        raise InputError("the training mix has no positives; use n_aug of 1 or more, or shot=few or shot=full")
    if goods == 0:
        raise InputError("the training part has no negatives; the data set must bring images of good parts")
    return mixed


def _take(pool: Sequence[Sample], origins: tuple[Origin, ...], label: int, count: int) -> list[Sample]:
    if len(pool) < count:
        raise InputError(f"{count} {origins[0]} images are needed, the pool has {len(pool)}; make a larger pool")
    taken = list(pool[:count])
    for sample in taken:
        if sample.origin not in origins or sample.label != label:
            kind = f"{origins[0]} {'positives' if label else 'negatives'}"
            raise InputError(f"{sample.image}: origin {sample.origin!r} and label {sample.label} in a pool of {kind}")
        if sample.review == "reject":
            raise InputError(f"{sample.image}: was rejected in review; remove its row from the pool")
    return [sample.with_(split="train") for sample in taken]


def _refuse_leaks(real: Sequence[Sample], synthetic: Sequence[Sample]) -> None:
    """No synthetic image may be, or have been made from, a validation or test image; each must say its sources."""
    if not synthetic:
        return
    contents = dict(zip(digests([sample.image for sample in real]), real, strict=True))
    allowed = {content for content, sample in contents.items() if sample.split == "train"}
    for sample, content in zip(synthetic, digests([sample.image for sample in synthetic]), strict=True):
        if not sample.sources:
            raise InputError(f"{sample.image}: its row does not say which training images it was made from (sources)")
        if content in contents:
            raise InputError(f"{sample.image}: is an image of the data set, {contents[content].image}; remove its row")
        if not set(sample.sources) <= allowed:
            raise InputError(
                f"{sample.image}: was made from an image outside the training part; make the pool anew with the same "
                "data, val_share and seed"
            )
