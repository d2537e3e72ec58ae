"""What a search maximises: the average precision of a validation part, which is made here.

Real positives are used where they are asked for, or where all are known (shot=full). Otherwise a proxy takes their
place: held-out synthetic positives, half MemSeg on the validation negatives, half diffusion at one alpha, both of
other seeds than any image that is trained on. Their alpha and their number are the study's, so the proxy does not
move with a trial. It tells whether a classifier finds synthetic defects it has not seen, of both kinds, and gives no
false alarm on real good parts. It does not tell whether it finds real defects; and it leans towards mixes that resemble
it: half and half, with an alpha near its own.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from inandout.data.manifest import Sample
from inandout.data.prepare import CheckedData
from inandout.errors import InputError
from inandout.mixing import split_counts
from inandout.seeds import PoolStream, derive_seed
from inandout.stages.classify.validate import without_test
from inandout.stages.pools.augment import MemSegPoolConfig, augment_memseg
from inandout.stages.pools.text2img import DdpmPoolConfig, adapter_run, augment_ddpm

ValidationPositives = Literal["real", "synthetic"]


class ValidationSet(NamedTuple):
    """Validation images, and what they are in a sentence."""

    samples: list[Sample]
    sentence: str


def build_validation_set(objective: ValidationPositives, held_out: DdpmPoolConfig, data: CheckedData) -> ValidationSet:
    """The validation part of a study.

    Args:
        objective: kind of positives.
        held_out: how the data set is split, and how held-out diffusion images are drawn; `n_aug` is the number of
            held-out positives.
        data: the data set.

    Raises:
        InputError: a class is empty.
    """
    samples = without_test(data.take_shot(held_out.data, held_out.scenario, held_out.seed))
    negatives = [sample for sample in samples if (sample.split, sample.label) == ("val", 0)]
    if not negatives:
        raise InputError("the validation part has no negatives to judge by; raise val_share")
    if objective == "real":
        return _with_real(negatives, held_out, data)
    positives = _held_out(samples, negatives, held_out, data)
    return ValidationSet(
        negatives + positives,
        f"AP of {len(negatives)} real negatives against {len(positives)} held-out synthetic positives, half MemSeg, "
        f"half diffusion at alpha = {held_out.drawing.alpha:g}: a proxy, which has seen no real defect",
    )


def _with_real(negatives: list[Sample], held_out: DdpmPoolConfig, data: CheckedData) -> ValidationSet:
    samples = data.split(held_out.data, held_out.seed)
    positives = [sample for sample in samples if (sample.split, sample.label) == ("val", 1)]
    if not positives:
        raise InputError("objective = real: the validation part has no real positives; give objective=synthetic")
    shot = held_out.scenario.shot
    beyond = "" if shot == "full" else f", which shot={shot} would not have: they were asked for"
    return ValidationSet(
        negatives + positives, f"AP of {len(negatives)} real negatives against {len(positives)} real positives{beyond}"
    )


def _held_out(
    samples: Sequence[Sample], negatives: Sequence[Sample], held_out: DdpmPoolConfig, data: CheckedData
) -> list[Sample]:  # fmt: skip
    """MemSeg on the validation negatives, which nobody trains on; diffusion from the study's adapter."""
    other = derive_seed(held_out.seed, PoolStream.HELD_OUT)
    n_ddpm, n_memseg = split_counts(held_out.n_aug, 0.5)
    anomalies = MemSegPoolConfig(
        data=held_out.data, geometry=held_out.geometry, seed=other, n_aug=n_memseg, fresh=held_out.fresh
    )  # fmt: skip
    memseg = augment_memseg(anomalies, [sample.with_(split="train") for sample in negatives])
    adapter = adapter_run(held_out, data.take_shot(held_out.data, held_out.scenario, held_out.seed))
    drawn = held_out.with_drawing(adapter=adapter).model_copy(update={"seed": other, "n_aug": n_ddpm})
    ddpm = augment_ddpm(drawn, list(samples))
    return [sample.with_(split="val") for sample in memseg.samples + ddpm.samples]
