from collections import Counter

import pytest
import torch

from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, Example, make_batches
from inandout.errors import InputError


def examples(instances: int, priors: int) -> list[Example]:
    shown = [Example(torch.zeros(1, 4, 4), prior=False) for _ in range(instances)]
    return shown + [Example(torch.zeros(1, 4, 4), prior=True) for _ in range(priors)]


def test_an_epoch_shows_each_instance_as_often_as_asked_and_as_many_priors() -> None:
    steps = make_batches(examples(3, 7), epochs=2, repeats=5, batch_size=4, seed=0)
    counts = Counter(index for batch in steps for index in batch)
    assert [counts[index] for index in range(3)] == [10, 10, 10]
    assert sum(counts[index] for index in range(3, 10)) == 30
    assert max(counts[index] for index in range(3, 10)) - min(counts[index] for index in range(3, 10)) <= 1


def test_every_batch_holds_as_many_of_both() -> None:
    shown = examples(4, 2)
    dataset = DreamBoothDataset(shown, "a", "b")
    assert {dataset.count(batch) for batch in make_batches(shown, 3, 2, 4, 0)} == {(2, 2)}


def test_without_prior_images_only_instances_are_shown() -> None:
    steps = make_batches(examples(3, 0), epochs=1, repeats=2, batch_size=4, seed=0)
    assert [len(batch) for batch in steps] == [4, 2]


def test_a_longer_training_begins_with_the_shorter_one_and_seeds_differ() -> None:
    shown = examples(5, 9)
    short, long = make_batches(shown, 2, 3, 4, 1), make_batches(shown, 4, 3, 4, 1)
    assert long[: len(short)] == short
    assert make_batches(shown, 2, 3, 4, 2) != short


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="no images to fine-tune on"):
        make_batches(examples(0, 4), 1, 1, 4, 0)
