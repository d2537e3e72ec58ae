import numpy as np
import pytest

from inandout.evaluation.combined_scores import Detector, combine
from inandout.evaluation.metrics import Scored, average_precisions

LABELS = np.array([0] * 40 + [1] * 40)


def detector(seed: int, scale: float = 1.0, offset: float = 0.0, labels: np.ndarray = LABELS) -> Detector:
    """A detector that sees defects with noise of its own."""
    rng = np.random.default_rng(seed)
    val = np.arange(50) % 2
    val_scores, test_scores = val + rng.normal(size=len(val)), labels + rng.normal(size=len(labels))
    return Detector(Scored(val, offset + scale * val_scores), Scored(labels, offset + scale * test_scores))


def ap(scored: Scored) -> float:
    return float(average_precisions(scored, np.ones((1, len(scored.labels)), np.int64))[0])


def test_two_detectors_with_errors_of_their_own_are_better_together() -> None:
    alone = [detector(seed) for seed in range(2)]
    assert ap(combine(alone)) > max(ap(each.test) for each in alone)


def test_units_of_a_score_do_not_matter() -> None:
    expected = combine([detector(0), detector(1)]).logits
    found = combine([detector(0), detector(1, scale=1000.0, offset=-7.0)]).logits
    assert np.allclose(found, expected)


def test_defects_of_the_validation_part_do_not_matter() -> None:
    first, second = detector(0), detector(1)
    shifted = first.val._replace(logits=first.val.logits + 100 * first.val.labels)
    assert np.array_equal(combine([first._replace(val=shifted), second]).logits, combine([first, second]).logits)


def test_a_score_without_spread_on_good_parts_changes_no_order() -> None:
    first = detector(0)
    for test in (np.ones(len(LABELS)), np.random.default_rng(0).normal(size=len(LABELS))):
        constant = Detector(Scored(np.zeros(5, np.int64), np.ones(5)), Scored(LABELS, test))
        assert np.array_equal(np.argsort(combine([first, constant]).logits), np.argsort(first.test.logits))


def test_other_images_and_missing_good_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="other labels"):
        combine([detector(0), detector(1, labels=1 - LABELS)])
    few = detector(1)._replace(val=Scored(np.array([0, 1]), np.array([0.5, 2.0])))
    with pytest.raises(ValueError, match="1 good validation images"):
        combine([detector(0), few])
