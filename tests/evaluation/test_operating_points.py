import math

import numpy as np
import pytest
from scipy.stats import beta, binom, norm

from inandout.errors import InputError
from inandout.evaluation.metrics import Scored
from inandout.evaluation.operating_points import (
    OperatingPoint,
    choose_point,
    measure_point,
    mistakes,
    needed_for,
    parse_rule,
    simultaneous_bound,
    upper_bound,
    worst_of_parts,
)

Scores = tuple[np.ndarray, np.ndarray]
"""Logits and labels; every image shows a part of its own."""


def scores(negatives: int, positives: int, seed: int = 0, gap: float = 2.0) -> Scores:
    """Return overlapping logits with float32 precision, like those of a classifier."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [negatives, positives])
    logits = rng.normal(gap * labels).astype(np.float32).astype(np.float64)
    return logits, labels


def choose(text: str, logits: np.ndarray, labels: np.ndarray, share: float | None = None) -> OperatingPoint:
    return choose_point(parse_rule(text), Scored(labels, logits), 0.05, share)


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
        ("recall>=0.95", 100, 58, r"recall>=0.95 needs 59 defective validation parts .* there are 58; .*recall>=0.949"),
        ("recall>=0.95", 100, 0, "needs 59 defective validation parts .* zero and few shots have none"),
        ("fpr<=0.01", 298, 10, r"fpr<=0.01 needs 299 good validation parts .* there are 298; .*fpr<=0.011"),
        ("fpr<=0.01", 0, 10, "needs 299 good validation parts .* there are 0; raise val_share"),
        ("cost 50:1", 100, 9, "needs 10 defective validation parts, but there are 9; raise val_share"),
        ("cost 50:1", 100, 0, "there are 0; zero and few shots have none, use another rule"),
        ("cost 50:1", 9, 100, "needs 10 good validation parts, but there are 9; raise val_share"),
        ("validation", 0, 5, "no validation negatives"),
    ],
)
def test_too_few_parts_are_refused_with_the_required_number(
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
    point = measure_point(chosen, Scored(labels, logits))
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


def test_a_part_counts_once_by_its_worst_image() -> None:
    labels, logits = np.array([1, 1, 1, 0, 0, 0, 0]), np.array([3.0, -1.0, 2.0, -2.0, 1.0, -3.0, -4.0])
    groups = ["a", "a", "", "b", "b", "a", ""]
    worst, of = worst_of_parts(Scored(labels, logits, groups))
    assert sorted(zip(of.tolist(), worst.tolist(), strict=True)) == [(0, -4), (0, -3), (0, 1), (1, -1), (1, 2)]
    point = choose_point(parse_rule("validation"), Scored(labels, logits, groups), 0.05)
    measured = measure_point(point.model_copy(update={"threshold": 0.0}), Scored(labels, logits, groups))
    assert measured.escapes is not None
    assert measured.false_rejects is not None
    assert (measured.escapes.wrong, measured.escapes.of) == (1, 2)
    assert (measured.false_rejects.wrong, measured.false_rejects.of) == (1, 3)


@pytest.mark.parametrize(("rule", "label"), [("recall>=0.95", 1), ("fpr<=0.05", 0)])
def test_many_images_of_few_parts_are_refused(rule: str, label: int) -> None:
    labels, groups = np.full(600, label), [str(i // 6) for i in range(600)]
    for parts in (58, 59):
        count = 6 * parts
        part = Scored(labels[:count], np.arange(float(count)), groups[:count])
        if parts == 59:
            assert choose_point(parse_rule(rule), part, 0.05).rule == rule
        else:
            with pytest.raises(InputError, match=f"{rule} needs 59 .* parts .* there are 58"):
                choose_point(parse_rule(rule), part, 0.05)


DRAWS = 200


def correlated(rng: np.random.Generator, parts: int, images: int, alike: float) -> np.ndarray:
    """Return standard normal scores (parts * images,); `alike` is the correlation of two images of one part."""
    common = rng.normal(size=(parts, 1)) * alike**0.5
    return (common + rng.normal(size=(parts, images)) * (1 - alike) ** 0.5).ravel()


def rates(threshold: float, images: int, alike: float) -> tuple[float, float]:
    """Return the shares of images, and of parts with an image, above `threshold` in the population of `correlated`."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    below = norm.cdf((threshold - nodes * alike**0.5) / max((1 - alike) ** 0.5, 1e-9))
    return float(norm.sf(threshold)), float(1 - (weights * below**images).sum() / weights.sum())


@pytest.mark.parametrize("alike", [0.5, 0.95])
@pytest.mark.parametrize(("parts", "images"), [(29, 1), (29, 2), (29, 6), (60, 6)])
def test_a_claim_on_correlated_images_is_broken_in_at_most_5_percent(parts: int, images: int, alike: float) -> None:
    """Both rules are claims of 10 %, of images and of parts; recall is the mirror image of the false positive rate."""
    rng = np.random.default_rng(parts + images)
    groups = [str(i // images) for i in range(parts * images)]
    broken = dict.fromkeys(("fpr", "recall", "test"), 0)
    for _ in range(DRAWS):
        good, defect, test = (correlated(rng, parts, images, alike) for _ in range(3))
        fpr = choose_point(parse_rule("fpr<=0.1"), Scored(np.zeros(len(good), np.int64), good, groups), 0.05)
        broken["fpr"] += max(rates(fpr.threshold, images, alike)) > 0.1
        recall = choose_point(parse_rule("recall>=0.9"), Scored(np.ones(len(good), np.int64), defect, groups), 0.05)
        broken["recall"] += max(rates(-recall.threshold, images, alike)) > 0.1
        measured = measure_point(fpr, Scored(np.zeros(len(good), np.int64), test, groups)).false_rejects
        assert measured is not None
        broken["test"] += max(rates(fpr.threshold, images, alike)) > measured.per_1000_at_most / 1000
    assert max(broken.values()) <= binom.ppf(0.9999, DRAWS, 0.05), broken


@pytest.mark.parametrize("rule", ["validation", "cost 20:1"])
def test_a_threshold_chosen_by_its_own_errors_has_the_bound_of_all_thresholds(rule: str) -> None:
    point = choose(rule, *scores(60, 40))
    assert point.escapes is not None
    assert point.false_rejects is not None
    assert point.escapes.per_1000_at_most == pytest.approx(1000 * simultaneous_bound(point.escapes.wrong, 40))
    assert point.false_rejects.per_1000_at_most == pytest.approx(
        1000 * simultaneous_bound(point.false_rejects.wrong, 60)
    )


@pytest.mark.parametrize("of", [12, 60])
def test_the_bound_of_all_thresholds_is_broken_at_any_of_them_in_at_most_5_percent(of: int) -> None:
    """For uniform scores the share above a threshold t is 1 - t; the exact bound of one threshold is too low."""
    scores = np.sort(np.random.default_rng(of).random((1000, of)))[:, ::-1]
    above = np.arange(of)  # just above the i-th highest score, i scores are higher
    broken = {
        bound: (1 - scores > np.array([bound(wrong, of) for wrong in above.tolist()])).any(axis=1).sum()
        for bound in (simultaneous_bound, upper_bound)
    }
    assert broken[simultaneous_bound] <= binom.ppf(0.999, 1000, 0.05)
    assert broken[upper_bound] > 150


def test_escapes_are_counted_by_kind_and_part() -> None:
    """The part "both" has a found crack and a missed dent; the part "twice" is missed in one of its two cracks."""
    rows = [
        (0, 9.0, "good", "crack"), (1, 5.0, "both", "crack"), (1, -5.0, "both", "dent"), (1, 5.0, "twice", "crack"),
        (1, -5.0, "twice", "crack"), (1, 5.0, "", "crack"), (1, 0.0, "", "crack"), (1, -9.0, "", ""),
    ]  # fmt: skip
    labels, logits, groups, kinds = zip(*rows, strict=True)
    scored = Scored(np.array(labels), np.array(logits), groups, kinds)
    point = OperatingPoint(
        rule="validation", threshold=0.0, measured_on="validation", recall=None, fpr=None, escapes=None,
        false_rejects=None,
    )  # fmt: skip
    measured = measure_point(point, scored)
    found = measured.escapes_by_kind
    assert {kind: (errors.wrong, errors.of) for kind, errors in found.items()} == {"crack": (1, 4), "dent": (1, 1)}
    assert found["crack"].per_1000 == 250
    assert found["crack"].per_1000_at_most == pytest.approx(1000 * beta.ppf(0.95, 2, 3))
    assert found["dent"].per_1000_at_most == 1000
    assert measured.escapes is not None
    assert (measured.escapes.wrong, measured.escapes.of) == (3, 5), "in all, a part counts once"
    assert OperatingPoint.model_validate_json(measured.model_dump_json()) == measured
    assert measure_point(point, scored._replace(kinds=())).escapes_by_kind == {}
