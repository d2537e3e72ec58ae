import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from inandout.errors import InputError
from inandout.evaluation.metrics import (
    Scored,
    aurocs,
    average_precisions,
    best_f1_threshold,
    bootstrap_intervals,
    draw_parts,
    evaluate,
    honest_threshold,
    operating_point,
    ranking,
    recalls_at_fpr,
)

LABELS = np.array([0] * 8 + [1] * 2)
NOTHING = Scored(np.empty(0, np.int64), np.empty(0))


def test_a_perfect_ranking_scores_one() -> None:
    values = ranking(LABELS + 0.1 * np.arange(10), LABELS)
    assert values == {
        "ap": 1.0, "ap_trapezoid": 1.0, "auroc": 1.0, "recall_at_fpr_1": 1.0, "fpr_at_recall_95": 0.0,
    }  # fmt: skip


def test_average_precision_by_hand() -> None:
    logits = np.array([0.9, 0.8, 0.7, 0.6])
    assert ranking(logits, np.array([1, 0, 1, 0]))["ap"] == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_constant_scores_have_the_prevalence_as_ap_and_a_note() -> None:
    result = evaluate(Scored(LABELS, np.zeros(10)), Scored(np.array([0, 0, 1, 1]), np.zeros(4)), 0.05, 0)
    assert result.values["ap"] == pytest.approx(0.2)
    assert result.values["ap_trapezoid"] == pytest.approx(0.6), "the trapezoidal rule is too high for ties"
    assert "separates nothing" in result.notes[0]


def test_a_single_class_has_no_metrics_but_a_note() -> None:
    result = evaluate(Scored(np.zeros(4, np.int64), np.arange(4.0)), NOTHING, 0.05, 0)
    assert result.values == {}
    assert "one class only" in result.notes[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_scores_are_an_error(bad: float) -> None:
    logits = np.arange(10.0)
    logits[3] = bad
    with pytest.raises(InputError, match="NaN or infinite"):
        evaluate(Scored(LABELS, logits), NOTHING, 0.05, 0)


def test_the_honest_threshold_does_not_depend_on_the_test_part() -> None:
    val = Scored(np.array([0, 0, 1, 1]), np.array([-2.0, -1.0, 3.0, 4.0]))
    rng = np.random.default_rng(0)
    thresholds = {evaluate(Scored(LABELS, rng.normal(size=10)), val, 0.05, 0).values["threshold"] for _ in range(5)}
    assert thresholds == {3.0}


def test_without_validation_positives_the_negatives_determine_the_threshold() -> None:
    negatives = np.arange(100.0)
    threshold, note = honest_threshold(negatives, np.zeros(100, np.int64), 0.05)
    assert threshold is not None
    assert (negatives >= threshold).sum() == 5
    assert "5 of 100 validation negatives" in note
    threshold, note = honest_threshold(np.zeros(100), np.zeros(100, np.int64), 0.05)
    assert threshold is not None
    assert (np.zeros(100) >= threshold).sum() == 0, "ties must not raise the rate above the limit"
    assert "0 of 100" in note


@pytest.mark.parametrize("count", [1, 19, 30, 39, 110])
def test_the_share_of_negatives_above_the_threshold_is_never_above_the_limit(count: int) -> None:
    negatives = np.random.default_rng(count).permutation(np.arange(float(count)))
    threshold, _ = honest_threshold(negatives, np.zeros(count, np.int64), 0.05)
    assert threshold is not None
    above = (negatives >= threshold).sum()
    assert above <= 0.05 * count < above + 1, "one more would exceed the limit"


def test_without_validation_images_there_is_no_honest_operating_point() -> None:
    result = evaluate(Scored(LABELS, np.arange(10.0)), NOTHING, 0.05, 0)
    assert "oracle_recall" in result.values
    assert "recall" not in result.values
    assert "no honest threshold" in result.notes[-1]


def test_the_best_f1_threshold_is_optimal_among_all_scores() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        logits, labels = rng.normal(size=40).round(1), (rng.random(40) < 0.3).astype(np.int64)
        labels[0] = 1
        best = operating_point(logits, labels, best_f1_threshold(logits, labels), "")["f1"]
        assert best == pytest.approx(max(operating_point(logits, labels, t, "")["f1"] for t in logits))


def test_an_operating_point_by_hand() -> None:
    point = operating_point(np.array([0.0, 1, 2, 3]), np.array([0, 1, 0, 1]), 1.0, "oracle_")
    assert point == {
        "oracle_threshold": 1.0,
        "oracle_precision": pytest.approx(2 / 3),
        "oracle_recall": 1.0,
        "oracle_f1": pytest.approx(0.8),
    }
    assert operating_point(np.zeros(2), np.array([0, 1]), 9.0, "")["precision"] == 0


def test_recall_at_a_false_positive_rate_by_hand() -> None:
    logits = np.concatenate([np.arange(200.0), [250.0, 198.5, 150.5]])
    labels = np.array([0] * 200 + [1] * 3)
    values = ranking(logits, labels)
    assert values["recall_at_fpr_1"] == pytest.approx(2 / 3)
    assert values["fpr_at_recall_95"] == pytest.approx(49 / 200)


def test_ties_do_not_change_the_false_positive_rate() -> None:
    logits, labels = np.repeat(np.arange(100.0), 2), np.tile([0, 1], 100)
    assert ranking(logits, labels)["fpr_at_recall_95"] == pytest.approx(0.95)


def test_the_bootstrap_interval_contains_the_value_and_is_seeded() -> None:
    rng = np.random.default_rng(0)
    labels = (np.arange(200) < 40).astype(np.int64)
    logits = rng.normal(size=200) + labels
    test = Scored(labels, logits)
    interval = bootstrap_intervals(test, 0)
    assert interval["ap_low"] < ranking(logits, labels)["ap"] < interval["ap_high"]
    assert 0.05 < interval["ap_high"] - interval["ap_low"] < 0.4
    assert bootstrap_intervals(test, 0) == interval
    assert bootstrap_intervals(test, 1) != interval


def test_the_bootstrap_interval_misses_the_truth_in_about_5_percent() -> None:
    """The miss rate has both bounds. AP of few positives is biased upwards: the percentile interval misses in 8 %."""
    labels = np.array([1] * 40 + [0] * 120, np.int64)
    population = np.repeat([1, 0], [50_000, 150_000])
    rng = np.random.default_rng(1)
    truth = ranking(population + rng.normal(size=len(population)), population)["ap"]
    missed = 0
    for seed in range(200):
        interval = bootstrap_intervals(Scored(labels, labels + rng.normal(size=len(labels))), seed, rounds=100)
        missed += not interval["ap_low"] <= truth <= interval["ap_high"]
    assert 3 <= missed <= 22


def test_images_of_a_part_are_drawn_together_and_labels_separately() -> None:
    labels, groups = np.array([0, 0, 0, 0, 1, 1, 1]), ["a", "", "a", "", "b", "b", "a"]
    weights = draw_parts(labels, groups, np.random.default_rng(0), 50)
    assert (weights[:, 0] == weights[:, 2]).all(), "both are part a"
    assert (weights[:, 4] == weights[:, 5]).all(), "both are part b"
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert (weights[:, [4, 6]].sum(axis=1) == 2).all(), "positives and negatives of part a are drawn separately"
    assert len(np.unique(weights, axis=0)) > 10
    assert (draw_parts(labels, (), np.random.default_rng(0), 5).sum(axis=1) == 7).all()


def test_weighted_metrics_equal_metrics_of_repeated_images_with_ties() -> None:
    rng = np.random.default_rng(0)
    labels, logits = np.array([0] * 30 + [1] * 10), rng.normal(size=40).round(1)
    weights = draw_parts(labels, (), rng, 20)
    averages = average_precisions(Scored(labels, logits), weights)
    recalls = recalls_at_fpr(Scored(labels, logits), weights, 0.01)
    for row, average, recall in zip(weights, averages, recalls, strict=True):
        values = ranking(np.repeat(logits, row), np.repeat(labels, row))
        assert average == pytest.approx(values["ap"])
        assert recall == pytest.approx(values["recall_at_fpr_1"])


def test_the_auroc_of_each_weighting_is_scikit_learns_with_ties() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 1] * 20)
    scored = Scored(labels, rng.integers(0, 5, 40).astype(float) + labels)
    weights = rng.integers(0, 3, (3, 40))
    weights[0] = 1
    expected = [roc_auc_score(labels, scored.logits, sample_weight=row) for row in weights]
    assert aurocs(scored, weights) == pytest.approx(expected)
    assert ranking(scored.logits, labels)["auroc"] == pytest.approx(expected[0])
    interval = bootstrap_intervals(scored, 0)
    assert interval["auroc_low"] < expected[0] < interval["auroc_high"]
