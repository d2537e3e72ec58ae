from pathlib import Path

import numpy as np
import pytest

from inandout.data.images import write_image
from inandout.data.manifest import Origin, Sample, digest
from inandout.errors import InputError
from inandout.mixing import mix, share_out


@pytest.fixture
def real(tmp_path: Path) -> list[Sample]:
    samples = []
    for number, (split, label) in enumerate([("train", 0), ("train", 1), ("val", 0), ("test", 0), ("test", 1)]):
        write_image(tmp_path / f"{number}.png", np.full((4, 4, 3), number, np.uint8))
        samples.append(Sample(image=tmp_path / f"{number}.png", label=label, split=split))
    return samples


def pool(origin: Origin, count: int, source: str) -> list[Sample]:
    return [Sample(image=Path(f"/{origin}{i}.png"), label=1, origin=origin, sources=(source,)) for i in range(count)]


@pytest.mark.parametrize(
    ("n_aug", "ratio", "expected"),
    [(100, 0.5, (50, 50)), (5, 0.5, (2, 3)), (1, 0.5, (0, 1)), (1, 1.0, (1, 0)), (0, 0.5, (0, 0)), (80, 0.0, (0, 80))],
)
def test_an_odd_split_gives_memseg_the_odd_picture(n_aug: int, ratio: float, expected: tuple[int, int]) -> None:
    assert share_out(n_aug, ratio) == expected


def test_the_mix_is_the_training_part_and_the_first_of_each_pool(real: list[Sample]) -> None:
    source = digest(real[0].image)
    mixed = mix(real, pool("memseg", 9, source), pool("ddpm", 9, source), 7, 0.5)
    assert [sample.origin for sample in mixed] == ["real"] * 2 + ["ddpm"] * 3 + ["memseg"] * 4
    assert {sample.split for sample in mixed} == {"train"}
    assert mixed[2].image.name == "ddpm0.png"


def test_a_picture_made_from_a_validation_or_test_picture_is_refused(real: list[Sample]) -> None:
    for leaked in real[2:]:
        with pytest.raises(InputError, match="outside the training part"):
            mix(real, pool("memseg", 2, digest(leaked.image)), [], 2, 0.0)


def test_a_small_pool_is_refused_with_both_numbers(real: list[Sample]) -> None:
    with pytest.raises(InputError, match="5 memseg pictures are needed, the pool has 2"):
        mix(real, pool("memseg", 2, digest(real[0].image)), [], 5, 0.0)


def test_a_pool_of_another_kind_is_refused(real: list[Sample]) -> None:
    with pytest.raises(InputError, match="in a pool of memseg positives"):
        mix(real, pool("ddpm", 2, digest(real[0].image)), [], 2, 0.0)


def test_nothing_to_learn_from_is_refused(real: list[Sample]) -> None:
    with pytest.raises(InputError, match="no positives"):
        mix([sample for sample in real if sample.label == 0], [], [], 0, 0.0)
    with pytest.raises(InputError, match="no negatives"):
        mix([sample for sample in real if sample.label == 1], [], [], 0, 0.0)
