from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inandout.data.images import write_image
from inandout.data.manifest import Origin, Sample, digest
from inandout.errors import InputError
from inandout.mixing import mix, split_counts

Pool = Callable[[Origin, int, str], list[Sample]]


@pytest.fixture
def real(tmp_path: Path) -> list[Sample]:
    samples = []
    for number, (split, label) in enumerate([("train", 0), ("train", 1), ("val", 0), ("test", 0), ("test", 1)]):
        write_image(tmp_path / f"{number}.png", np.full((4, 4, 3), number, np.uint8))
        samples.append(Sample(image=tmp_path / f"{number}.png", label=label, split=split))
    return samples


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    def make(origin: Origin, count: int, source: str) -> list[Sample]:
        paths = [tmp_path / f"{origin}{i}.png" for i in range(count)]
        for i, path in enumerate(paths):
            write_image(path, np.full((4, 4, 3), 100 + i, np.uint8))
        return [Sample(image=path, label=1, origin=origin, sources=(source,)) for path in paths]

    return make


@pytest.mark.parametrize(
    ("n_aug", "ratio", "expected"),
    [
        (100, 0.29, (29, 71)),
        (100, 0.5, (50, 50)),
        (5, 0.5, (2, 3)),
        (1, 0.5, (0, 1)),
        (1, 1.0, (1, 0)),
        (0, 0.5, (0, 0)),
        (80, 0.0, (0, 80)),
    ],
)
def test_counts_are_rounded_in_favour_of_memseg(n_aug: int, ratio: float, expected: tuple[int, int]) -> None:
    assert split_counts(n_aug, ratio) == expected


def test_the_mix_is_the_training_part_and_the_first_images_of_each_pool(real: list[Sample], pool: Pool) -> None:
    source = digest(real[0].image)
    mixed = mix(real, pool("memseg", 9, source), pool("ddpm", 9, source), 7, 0.5)
    assert [sample.origin for sample in mixed] == ["real"] * 2 + ["ddpm"] * 3 + ["memseg"] * 4
    assert {sample.split for sample in mixed} == {"train"}
    assert mixed[2].image.name == "ddpm0.png"


def test_an_image_made_from_a_validation_or_test_image_is_refused(real: list[Sample], pool: Pool) -> None:
    for leaked in real[2:]:
        with pytest.raises(InputError, match="outside the training part"):
            mix(real, pool("memseg", 2, digest(leaked.image)), [], 2, 0.0)


def test_one_good_source_does_not_excuse_another_outside_the_training_part(real: list[Sample], pool: Pool) -> None:
    good, leaked = digest(real[0].image), digest(real[3].image)
    for sources in ((good, leaked), (leaked, good)):
        mixed = [sample.with_(sources=sources) for sample in pool("ddpm", 1, good)]
        with pytest.raises(InputError, match="outside the training part"):
            mix(real, [], mixed, 1, 1.0)
    both = [sample.with_(sources=(good, digest(real[1].image))) for sample in pool("ddpm", 1, good)]
    assert len(mix(real, [], both, 1, 1.0)) == 3


def test_an_image_without_sources_is_refused(real: list[Sample], pool: Pool) -> None:
    unknown = [sample.with_(sources=()) for sample in pool("ddpm", 1, "x")]
    with pytest.raises(InputError, match="its row lists no source images"):
        mix(real, [], unknown, 1, 1.0)


def test_a_test_image_in_a_pool_is_refused(real: list[Sample]) -> None:
    leak = real[4].with_(origin="ddpm", sources=(digest(real[0].image),))
    with pytest.raises(InputError, match=r"duplicates .*4\.png of the data set"):
        mix(real, [], [leak], 1, 1.0)


def test_a_rejected_image_is_refused(real: list[Sample], pool: Pool) -> None:
    rejected = [sample.with_(review="reject") for sample in pool("memseg", 1, digest(real[0].image))]
    with pytest.raises(InputError, match="rejected in review"):
        mix(real, rejected, [], 1, 0.0)


def test_a_small_pool_is_refused_with_both_numbers(real: list[Sample], pool: Pool) -> None:
    with pytest.raises(InputError, match="5 memseg images are needed, but the pool has 2"):
        mix(real, pool("memseg", 2, digest(real[0].image)), [], 5, 0.0)


def test_a_pool_of_another_kind_is_refused(real: list[Sample], pool: Pool) -> None:
    with pytest.raises(InputError, match="in a pool of memseg positives"):
        mix(real, pool("ddpm", 2, digest(real[0].image)), [], 2, 0.0)


def test_a_mix_with_an_empty_class_is_refused(real: list[Sample], pool: Pool) -> None:
    with pytest.raises(InputError, match="no positives"):
        mix([sample for sample in real if sample.label == 0], [], [], 0, 0.0)
    with pytest.raises(InputError, match="no negatives"):
        mix([sample for sample in real if sample.label == 1], [], [], 0, 0.0)


def test_the_mix_has_as_many_synthetic_negatives_as_diffusion_images(real: list[Sample], pool: Pool) -> None:
    source = digest(real[0].image)
    goods = [sample.with_(label=0) for sample in pool("roundtrip", 9, source)]
    mixed = mix(real, pool("memseg", 9, source), pool("ddpm", 9, source), 7, 0.5, goods)
    assert [(sample.origin, sample.label) for sample in mixed] == [
        ("real", 0), ("real", 1), *[("ddpm", 1)] * 3, *[("memseg", 1)] * 4, *[("roundtrip", 0)] * 3
    ]  # fmt: skip
    with pytest.raises(InputError, match="3 roundtrip images are needed, but the pool has 2"):
        mix(real, pool("memseg", 9, source), pool("ddpm", 9, source), 7, 0.5, goods[:2])
    with pytest.raises(InputError, match="label 1 in a pool of roundtrip negatives"):
        mix(real, [], pool("ddpm", 9, source), 3, 1.0, pool("roundtrip", 3, source))
    with pytest.raises(InputError, match="label 0 in a pool of ddpm positives"):
        mix(real, [], [sample.with_(label=0) for sample in pool("ddpm", 1, source)], 1, 1.0)
    leak = [sample.with_(label=0) for sample in pool("roundtrip", 1, digest(real[3].image))]
    with pytest.raises(InputError, match="outside the training part"):
        mix(real, [], pool("ddpm", 1, source), 1, 1.0, leak)


def test_an_image_of_another_generator_needs_no_sources_but_known_ones_are_checked(
    real: list[Sample], pool: Pool
) -> None:
    others = [sample.with_(sources=()) for sample in pool("other", 3, "")]
    assert [sample.origin for sample in mix(real, [], others, 3, 1.0)][2:] == ["other"] * 3
    with pytest.raises(InputError, match="outside the training part"):
        mix(real, [], pool("other", 1, digest(real[4].image)), 1, 1.0)
