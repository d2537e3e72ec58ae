from collections import Counter

import pytest
import torch

from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, Example, make_batches
from inandout.errors import InputError


def examples(instances: int, priors: int) -> list[Example]:
    images = [Example(torch.zeros(1, 4, 4), prior=False) for _ in range(instances)]
    return images + [Example(torch.zeros(1, 4, 4), prior=True) for _ in range(priors)]


def test_an_epoch_repeats_each_instance_and_adds_as_many_priors() -> None:
    steps = make_batches(examples(3, 7), epochs=2, repeats=5, batch_size=4, seed=0)
    counts = Counter(index for batch in steps for index in batch)
    assert [counts[index] for index in range(3)] == [10, 10, 10]
    assert sum(counts[index] for index in range(3, 10)) == 30
    assert max(counts[index] for index in range(3, 10)) - min(counts[index] for index in range(3, 10)) <= 1


def test_every_batch_holds_as_many_priors_as_instances() -> None:
    images = examples(4, 2)
    dataset = DreamBoothDataset(images, "a", "b")
    assert {dataset.count(batch) for batch in make_batches(images, 3, 2, 4, 0)} == {(2, 2)}


def test_without_prior_images_batches_hold_instances_alone() -> None:
    steps = make_batches(examples(3, 0), epochs=1, repeats=2, batch_size=4, seed=0)
    assert [len(batch) for batch in steps] == [4, 2]


def test_a_longer_training_begins_with_the_batches_of_a_shorter_one() -> None:
    images = examples(5, 9)
    short, long = make_batches(images, 2, 3, 4, 1), make_batches(images, 4, 3, 4, 1)
    assert long[: len(short)] == short
    assert make_batches(images, 2, 3, 4, 2) != short


def test_no_instance_images_are_rejected() -> None:
    with pytest.raises(InputError, match="no images to fine-tune on"):
        make_batches(examples(0, 4), 1, 1, 4, 0)
