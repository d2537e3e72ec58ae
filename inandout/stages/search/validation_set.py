"""Validation images of a search.

Real positives are used with shot=full or on request. Otherwise held-out synthetic positives are a proxy: half MemSeg on
validation negatives, half diffusion at a fixed alpha, with seeds that differ from those of all training images. Alpha
and number are fixed for the study, so that the proxy is equal in all trials. The proxy measures whether a classifier
finds unseen synthetic defects of both kinds without false alarms on real good parts. It does not measure whether the
classifier finds real defects, and it favours mixes that resemble it: half and half, with an alpha close to its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

from inandout.data.manifest import Sample
from inandout.data.prepare import CheckedData
from inandout.errors import InputError
from inandout.mixing import split_counts
from inandout.seeds import PoolStream, derive_seed
from inandout.stages.classify.validate import without_test
from inandout.stages.pools.augment import augment_memseg
from inandout.stages.pools.config import DdpmPoolConfig, MemSegPoolConfig
from inandout.stages.pools.text2img import adapter_run, augment_ddpm
from inandout.stages.search.config import ValidationPositives


class ValidationSet(NamedTuple):
    """Validation images and a sentence that describes them."""

    samples: list[Sample]
    sentence: str


def build_validation_set(objective: ValidationPositives, held_out: DdpmPoolConfig, data: CheckedData) -> ValidationSet:
    """Build the validation images of a study.

    Args:
        objective: kind of positives.
        held_out: split of the dataset, and configuration of held-out diffusion images; `n_aug` is the number of all
            held-out positives.
        data: the dataset.

    Raises:
        InputError: a class is empty.
    """
    samples = without_test(data.take_shot(held_out.data, held_out.scenario, held_out.seed))
    negatives = [sample for sample in samples if (sample.split, sample.label) == ("val", 0)]
    if not negatives:
        raise InputError("the validation part has no negatives; raise val_share")
    if objective == "real":
        return _with_real(negatives, held_out, data)
    positives = _held_out(samples, negatives, held_out, data)
    return ValidationSet(
        negatives + positives,
        f"AP of {len(negatives)} real negatives against {len(positives)} held-out synthetic positives, half MemSeg, "
        f"half diffusion at alpha = {held_out.drawing.alpha:g}: a proxy without real defects",
    )


def _with_real(negatives: list[Sample], held_out: DdpmPoolConfig, data: CheckedData) -> ValidationSet:
    samples = data.split(held_out.data, held_out.seed)
    positives = [sample for sample in samples if (sample.split, sample.label) == ("val", 1)]
    if not positives:
        raise InputError("objective = real: the validation part has no real positives; give objective=synthetic")
    shot = held_out.scenario.shot
    beyond = "" if shot == "full" else f", used on request although shot={shot} withholds them"
    return ValidationSet(
        negatives + positives, f"AP of {len(negatives)} real negatives against {len(positives)} real positives{beyond}"
    )


def _held_out(
    samples: Sequence[Sample], negatives: Sequence[Sample], held_out: DdpmPoolConfig, data: CheckedData
) -> list[Sample]:  # fmt: skip
    """Draw MemSeg anomalies on the validation negatives, and diffusion images with the study's adapter."""
    other = derive_seed(held_out.seed, PoolStream.HELD_OUT)
    n_ddpm, n_memseg = split_counts(held_out.n_aug, 0.5)
    anomalies = MemSegPoolConfig(
        data=held_out.data, geometry=held_out.geometry, seed=other, n_aug=n_memseg, fresh=held_out.fresh
    )  # fmt: skip
    memseg = augment_memseg(anomalies, [sample.with_(split="train") for sample in negatives])
    adapter = adapter_run(held_out, data.take_shot(held_out.data, held_out.scenario, held_out.seed))
    diffusion = held_out.with_drawing(adapter=adapter).model_copy(update={"seed": other, "n_aug": n_ddpm})
    ddpm = augment_ddpm(diffusion, list(samples))
    return [sample.with_(split="val") for sample in memseg.samples + ddpm.samples]
