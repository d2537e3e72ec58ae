import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from inandout.evaluation.metrics import Scored, average_precisions
from inandout.evaluation.paired_test import METRICS, paired_difference, paired_test, recalls


def scored(seed: int, strength: float, positives: int = 40, negatives: int = 120) -> Scored:
    """Return scores whose positives are `strength` standard deviations higher, with noise from the seed."""
    labels = np.array([1] * positives + [0] * negatives, np.int64)
    return Scored(labels, np.random.default_rng(seed).normal(size=len(labels)) + strength * labels)


def test_a_clear_increase_is_better_and_a_clear_decrease_worse() -> None:
    weak, strong = ([scored(seed, strength) for seed in range(4)] for strength in (0.5, 2.0))
    increase = paired_difference(strong, weak, average_precisions, rounds=200)
    assert 0 < increase.low < increase.mean < increase.high
    assert increase.verdict() == "better"
    decrease = paired_difference(weak, strong, average_precisions, rounds=200)
    assert decrease.mean == pytest.approx(-increase.mean)
    assert decrease.verdict() == "worse"


def test_the_mean_difference_is_the_mean_over_seeds() -> None:
    ours, theirs = [scored(0, 1.0), scored(1, 2.0)], [scored(2, 1.0), scored(3, 1.0)]
    expected = np.mean(
        [average_precision_score(*a[:2]) - average_precision_score(*b[:2]) for a, b in zip(ours, theirs, strict=True)]
    )
    assert paired_difference(ours, theirs, average_precisions, rounds=10).mean == pytest.approx(expected)


LABELS = np.array([1] * 40 + [0] * 120, np.int64)


def misses(trials: int, seeds: int, training: float, parts: float) -> int:
    """Return the number of intervals without the true difference 0 of two equal training methods.

    Args:
        trials: number of comparisons.
        seeds: training runs per method.
        training: standard deviation of the effect size over training runs.
        parts: standard deviation of an image's difficulty, shared by all runs of a method.
    """
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(trials):
        common, methods = rng.normal(size=len(LABELS)), []
        for _ in range(2):
            logits = common + parts * rng.normal(size=len(LABELS))
            methods.append([Scored(LABELS, logits + LABELS * (1 + training * rng.normal())) for _ in range(seeds)])
        difference = paired_difference(methods[0], methods[1], average_precisions, rounds=80)
        missed += not difference.low <= 0 <= difference.high
    return missed


@pytest.mark.parametrize(
    ("seeds", "training", "parts"),
    [
        pytest.param(4, 1.0, 0.0, id="training-variance"),
        pytest.param(4, 0.02, 1.0, id="parts-variance"),
        pytest.param(4, 0.3, 1.0, id="both"),
        pytest.param(2, 0.4, 0.5, id="two-seeds"),
        pytest.param(1, 0.0, 1.0, id="one-seed"),
    ],
)
def test_the_interval_misses_in_about_5_percent(seeds: int, training: float, parts: float) -> None:
    """The coverage is 90 to 99 %. With variance of both seeds and parts, the interval is rather wide."""
    assert 2 <= misses(200, seeds, training, parts) <= 20


def test_repeated_images_of_a_part_do_not_narrow_the_interval() -> None:
    few_ours, few_theirs = scored(0, 2.0, 12, 30), scored(1, 1.0, 12, 30)
    groups = [f"part {i}" for i in range(42)]
    many_ours, many_theirs = (
        Scored(np.repeat(a.labels, 10), np.repeat(a.logits, 10), [g for g in groups for _ in range(10)])
        for a in (few_ours, few_theirs)
    )
    few, many, naive = (
        paired_difference([a], [b], average_precisions, rounds=300)
        for a, b in (
            (few_ours, few_theirs), (many_ours, many_theirs),
            (many_ours._replace(groups=()), many_theirs._replace(groups=())),
        )
    )  # fmt: skip
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.2)
    assert naive.high - naive.low < 0.5 * (few.high - few.low)


def test_an_uninformative_classifier_has_low_recall_at_a_fixed_false_positive_rate() -> None:
    uninformative, informative = scored(0, 0.0, 140, 337), scored(0, 2.0, 140, 337)
    uniform = np.ones((1, 477), np.int64)
    assert recalls(uninformative, uniform)[0] < 0.15
    assert recalls(informative, uniform)[0] > 0.5


def test_pairing_narrows_the_interval() -> None:
    noisy = scored(0, 1.0)
    shifted = Scored(noisy.labels, noisy.logits + 0.01 * np.random.default_rng(1).normal(size=len(noisy.labels)))
    found = paired_difference([shifted], [noisy], average_precisions, rounds=200)
    assert found.high - found.low < 0.02


def test_the_same_seed_gives_the_same_interval() -> None:
    ours, theirs = [scored(0, 1.5)], [scored(1, 1.0)]
    assert paired_difference(ours, theirs, recalls, rounds=50) == paired_difference(ours, theirs, recalls, rounds=50)


def test_unpaired_test_images_are_refused() -> None:
    with pytest.raises(ValueError, match="same test images"):
        paired_difference([scored(0, 1.0)], [scored(0, 1.0, positives=39)], average_precisions)
    with pytest.raises(ValueError, match="same seeds"):
        paired_difference([scored(0, 1.0)], [], average_precisions)


def test_the_text_names_both_sides_the_interval_and_the_seeds() -> None:
    text = paired_test("zero shot, In&Out against MemSeg", [(scored(0, 2.0), scored(0, 0.5))]).lines()
    assert text.startswith("- zero shot, In&Out against MemSeg: AP +0.")
    assert "1 seed, so without training variance" in text
    assert text.count("\n") == len(METRICS) - 1


def test_parts_with_several_images_have_a_second_narrower_interval() -> None:
    strong, weak = scored(0, 2.0, positives=10, negatives=30), scored(1, 1.0, positives=10, negatives=30)
    groups = [f"part {i}" for i in range(40)] * 4
    ours, theirs = (Scored(np.tile(each.labels, 4), np.tile(each.logits, 4), groups) for each in (strong, weak))
    several = paired_test("ours against theirs", [(ours, theirs)])
    of_parts, of_images = several.differences["AP"], several.over_images["AP"]
    assert of_images.mean == of_parts.mean
    assert of_images.high - of_images.low < 0.7 * (of_parts.high - of_parts.low)
    assert f"; on other images of the same parts {of_images.low:+.3f} .. " in several.lines().splitlines()[0]
    single = paired_test("ours against theirs", [(strong, weak)])
    assert single.over_images == {}
    assert "images" not in single.lines()


def test_the_folds_of_a_seed_count_as_one_run_and_their_parts_add_up() -> None:
    ours, theirs = [scored(i, 1.5) for i in range(6)], [scored(10 + i, 1.0) for i in range(6)]
    folds = [(seed, f"{fold}/3") for seed in (0, 1) for fold in (1, 2, 3)]
    found = paired_difference(ours, theirs, rounds=200, runs=folds)
    apart = paired_difference(ours, theirs, rounds=200)
    assert found.mean == pytest.approx(apart.mean)
    assert found.high - found.low != pytest.approx(apart.high - apart.low, rel=0.01)
    one = paired_difference(ours[:1], theirs[:1], rounds=400)
    three = paired_difference(ours[:3], theirs[:3], rounds=400, runs=folds[:3])
    ratio = (one.high - one.low) / (three.high - three.low)
    assert ratio == pytest.approx(3**0.5, rel=0.35), "three folds have three times the parts, and one seed"


def test_the_interval_of_cross_validation_misses_in_about_5_percent() -> None:
    """Equal methods; two seeds with five folds of 8 defective and 24 good parts each."""
    rng, labels, missed = np.random.default_rng(1), np.array([1] * 8 + [0] * 24, np.int64), 0
    runs = [(seed, f"{fold}/5") for seed in (0, 1) for fold in range(1, 6)]
    for _ in range(120):
        difficulty = {fold: rng.normal(size=(3, len(labels))) for _, fold in runs}
        sides = [
            [Scored(labels, difficulty[fold][0] + difficulty[fold][side] + 0.3 * rng.normal(size=32) + labels)
             for _, fold in runs]
            for side in (1, 2)
        ]  # fmt: skip
        found = paired_difference(sides[0], sides[1], rounds=80, runs=runs)
        missed += not found.low <= 0 <= found.high
    assert missed <= 12
