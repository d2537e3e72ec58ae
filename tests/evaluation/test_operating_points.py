import math

import numpy as np
import pytest
from scipy.stats import beta, binom

from inandout.errors import InputError
from inandout.evaluation.operating_points import (
    OperatingPoint,
    choose_point,
    measure_point,
    mistakes,
    needed_for,
    parse_rule,
    upper_bound,
)

Scores = tuple[np.ndarray, np.ndarray]


def scores(negatives: int, positives: int, seed: int = 0, gap: float = 2.0) -> Scores:
    """Return overlapping logits with float32 precision, like those of a classifier."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [negatives, positives])
    logits = rng.normal(gap * labels).astype(np.float32).astype(np.float64)
    return logits, labels


def choose(text: str, logits: np.ndarray, labels: np.ndarray, share: float | None = None) -> OperatingPoint:
    return choose_point(parse_rule(text), logits, labels, 0.05, share)


@pytest.mark.parametrize(
    ("wrong", "of", "words"),
    [
        (0, 60, "0 of 60 missed: fewer than 4.9 % escape (95 %)"),
        (3, 60, "3 of 60 missed: fewer than 12.5 % escape (95 %)"),
        (60, 60, "60 of 60 missed: up to 100 % escape (95 %)"),
    ],
)
def test_mistakes_are_described_with_their_bound(wrong: int, of: int, words: str) -> None:
    result = mistakes(wrong, of)
    assert result is not None
    assert result.describe("missed", "escape") == words
    assert result.per_1000 == pytest.approx(1000 * wrong / of)


@pytest.mark.parametrize("of", [1, 19, 60, 333])
def test_the_bound_is_the_exact_one_of_clopper_and_pearson(of: int) -> None:
    for wrong in {0, of // 3, of - 1}:
        assert upper_bound(wrong, of) == pytest.approx(beta.ppf(0.95, wrong + 1, of - wrong), abs=1e-9)
    assert upper_bound(of, of) == 1


def test_the_words_never_promise_less_than_the_bound() -> None:
    for of in range(1, 200):
        result = mistakes(0, of)
        assert result is not None
        said = float(result.describe("missed", "escape").split("fewer than ")[1].split()[0])
        assert 0 <= said / 100 - upper_bound(0, of) < 0.001


@pytest.mark.parametrize(("share", "needed"), [(0.05, 59), (0.01, 299), (0.5, 5)])
def test_the_required_number_of_parts_follows_from_the_bound(share: float, needed: int) -> None:
    assert needed_for(share) == needed
    assert upper_bound(0, needed) <= share < upper_bound(0, needed - 1)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" Recall >= .95", "recall>=0.95"), ("fpr<=0.01", "fpr<=0.01"), ("cost 50:1", "cost 50:1"),
        ("cost 2.5 : 1", "cost 2.5:1"), ("validation", "validation"),
    ],
)  # fmt: skip
def test_rules_have_a_canonical_name(text: str, name: str) -> None:
    assert parse_rule(text).name == name
    assert parse_rule(name) == parse_rule(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recall>=1", "between 0 and 1"), ("fpr<=0", "between 0 and 1"), ("recall>=95", "between 0 and 1"),
        ("recall<=0.9", "no operating point"), ("fpr<=nan", "no operating point"), ("cost 0:1", "above 0"),
        ("cost 50", "no operating point"), ("f1", "no operating point"), ("", "no operating point"),
    ],
)  # fmt: skip
def test_invalid_rules_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_rule(text)


def test_recall_takes_the_highest_threshold_that_the_bound_allows() -> None:
    logits, labels = scores(300, 200)
    point = choose("recall>=0.95", logits, labels)
    assert point.escapes is not None
    assert point.escapes.per_1000_at_most <= 50
    higher = np.sort(logits[(labels == 1) & (logits > point.threshold)])[0]
    assert upper_bound(int((logits[labels == 1] < higher).sum()), 200) > 0.05
    assert point.recall == pytest.approx((logits[labels == 1] >= point.threshold).mean())


def test_fpr_takes_the_lowest_threshold_that_the_bound_allows() -> None:
    logits, labels = scores(700, 0)
    point = choose("fpr<=0.01", logits, labels)
    assert point.false_rejects is not None
    assert 0 < point.false_rejects.wrong < 7, "a claim of 0.01 allows fewer than 1 % of the sample"
    assert point.false_rejects.per_1000_at_most <= 10
    assert upper_bound(point.false_rejects.wrong + 1, 700) > 0.01
    lower = np.sort(logits[logits < point.threshold])[-1]
    assert (logits >= lower).sum() == point.false_rejects.wrong + 1
    assert np.float32(lower) < np.float32(point.threshold), "the step survives float32"
    assert (point.recall, point.escapes) == (None, None)


@pytest.mark.parametrize("rule", ["recall>=0.9", "fpr<=0.1"])
def test_the_claim_holds_in_19_of_20_samples(rule: str) -> None:
    """The threshold is a tolerance limit, so the claim holds, and only as often as stated, on the same scores."""
    kept = 0
    rng = np.random.default_rng(5)
    for _ in range(400):
        uniform = rng.random(80)  # for uniform scores the true rates equal the threshold
        threshold = choose(rule, uniform, np.full(80, int(rule[0] == "r"))).threshold
        kept += threshold <= 0.1 if rule[0] == "r" else 1 - threshold <= 0.1
    assert binom.cdf(kept, 400, 0.95) > 0.001
    assert binom.sf(kept - 1, 400, 0.97) > 0.001, "with 80 scores the next threshold would hold in 91 %"


def test_the_bound_of_a_share_holds_in_95_percent_and_hardly_more() -> None:
    """The coverage is computed exactly from the binomial distribution for each true share."""
    of = 100
    bounds = np.array([upper_bound(wrong, of) for wrong in range(of + 1)])
    counts = np.arange(of + 1)
    coverage = [sum(binom.pmf(counts[bounds >= share], of, share)) for share in np.linspace(0.03, 0.9, 60)]
    assert min(coverage) >= 0.95 - 1e-9
    assert np.mean(coverage) < 0.972


@pytest.mark.parametrize(
    ("rule", "negatives", "positives", "message"),
    [
        ("recall>=0.95", 100, 58, r"recall>=0.95 needs 59 validation positives .* there are 58; .*recall>=0.949"),
        ("recall>=0.95", 100, 0, "needs 59 validation positives .* zero and few shots have none"),
        ("fpr<=0.01", 298, 10, r"fpr<=0.01 needs 299 validation negatives .* there are 298; .*fpr<=0.011"),
        ("fpr<=0.01", 0, 10, "needs 299 validation negatives .* there are 0; raise val_share"),
        ("cost 50:1", 100, 9, "needs 10 validation positives, but there are 9; raise val_share"),
        ("cost 50:1", 100, 0, "there are 0; zero and few shots have none, use another rule"),
        ("cost 50:1", 9, 100, "needs 10 validation negatives, but there are 9; raise val_share"),
        ("validation", 0, 5, "no validation negatives"),
    ],
)
def test_too_few_images_are_refused_with_the_required_number(
    rule: str, negatives: int, positives: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        choose(rule, *scores(negatives, positives))


@pytest.mark.parametrize(("start", "label"), [("recall>=0.999", 1), ("fpr<=0.001", 0)])
@pytest.mark.parametrize("count", [1, 7, 58, 240])
def test_the_suggested_rule_is_supported(start: str, label: int, count: int) -> None:
    logits, labels = scores(count if label == 0 else 1, count if label else 1)
    with pytest.raises(InputError) as refusal:
        choose(start, logits, labels)
    suggestion = str(refusal.value).split("; use ")[1].split(",")[0]
    assert choose(suggestion, logits, labels).rule == suggestion


def test_the_cost_rule_has_the_lowest_cost_of_all_thresholds() -> None:
    logits, labels = scores(90, 30, gap=1.0)
    for rule, miss, reject in (("cost 50:1", 50, 1), ("cost 1:50", 1, 50), ("cost 3:2", 3, 2)):
        for share in (None, 0.01, 0.5):
            point = choose(rule, logits, labels, share)
            pi = labels.mean() if share is None else share
            assert point.defect_share == pytest.approx(pi)

            def cost(threshold: float, weights: tuple[float, float] = (miss * pi, reject * (1 - pi))) -> float:
                missed, rejected = logits[labels == 1] < threshold, logits[labels == 0] >= threshold
                return weights[0] * missed.mean() + weights[1] * rejected.mean()

            candidates = [*logits, math.inf]
            assert cost(point.threshold) == pytest.approx(min(cost(t) for t in candidates))


def test_rare_defects_raise_the_threshold_of_the_cost_rule() -> None:
    logits, labels = scores(90, 30, gap=1.0)
    assert choose("cost 10:1", logits, labels, 0.001).threshold > choose("cost 10:1", logits, labels, 0.3).threshold


def test_the_validation_rule_is_the_threshold_of_the_run_and_survives_float32() -> None:
    logits, labels = scores(40, 0)
    point = choose("validation", logits, labels)
    assert point.fpr == 0.05
    assert (logits.astype(np.float32) >= np.float32(point.threshold)).sum() == 2


def test_measuring_keeps_the_threshold_and_counts_errors_on_the_test_part() -> None:
    chosen = choose("validation", *scores(100, 40))
    logits, labels = scores(70, 50, seed=1)
    point = measure_point(chosen, logits, labels)
    assert (point.rule, point.threshold, point.measured_on) == (chosen.rule, chosen.threshold, "test")
    assert point.escapes is not None
    assert point.false_rejects is not None
    assert point.escapes.wrong == ((logits < chosen.threshold) & (labels == 1)).sum()
    assert point.false_rejects.wrong == ((logits >= chosen.threshold) & (labels == 0)).sum()
    assert (point.escapes.of, point.false_rejects.of) == (50, 70)
    assert OperatingPoint.model_validate_json(point.model_dump_json()) == point


def test_all_rules_handle_equal_scores() -> None:
    labels = np.repeat([0, 1], [100, 100])
    logits = np.zeros(200)
    for rule in ("recall>=0.95", "fpr<=0.05", "cost 50:1", "validation"):
        point = choose(rule, logits, labels)
        assert (point.recall, point.fpr) in {(1, 1), (0, 0)}
    assert choose("recall>=0.95", logits, labels).recall == 1
    assert choose("fpr<=0.05", logits, labels).fpr == 0
