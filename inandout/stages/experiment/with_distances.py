"""Add the distances of the nearest-neighbour baseline to the scores of every classifier of a comparison."""

from collections.abc import Mapping, Sequence

import numpy as np

from inandout.evaluation.combined_scores import FEWEST, Detector, combine
from inandout.evaluation.metrics import Scored, average_precisions
from inandout.evaluation.paired_test import METRICS, Repeat, mean_by_seed, paired_difference
from inandout.reporting.tables import Row, aligned
from inandout.stages.classify.scores import read_scores
from inandout.stages.experiment.grid import SOURCES

NOTE = (
    "The sum of the logit of the classifier and of the distance of the nearest-neighbour baseline, each minus the mean "
    "and divided by the standard deviation of the good validation parts, over the seeds and folds that both have. "
    "Nothing is chosen on test parts. Sources with fewer than two good validation parts are left out."
)


def distances_table(rows: Sequence[Row]) -> str:
    """Return a table of AP with and without distances; "" without the baseline or without good validation parts."""
    defined = [row for row in rows if "ap" in row.metrics and not row.n_shot]
    lines = [["shot", "source", "n_aug", "AP", "with distances", "minus alone", "minus distances"]]
    for shot in dict.fromkeys(row.shot for row in defined):
        of_shot = [row for row in defined if row.shot == shot]
        detectors = _detectors([row for row in of_shot if row.source == SOURCES["nearest"].title])
        rest = [row for row in of_shot if row.source != SOURCES["nearest"].title]
        for source, n_aug in dict.fromkeys((row.source, row.n_aug) for row in rest):
            line = _compare(_detectors([row for row in rest if (row.source, row.n_aug) == (source, n_aug)]), detectors)
            lines += [[shot, source, str(n_aug), *line]] if line else []
    return aligned(lines) if len(lines) > 1 else ""


def _detectors(rows: Sequence[Row]) -> dict[Repeat, Detector]:
    return {(row.seed, row.fold): Detector(read_scores(row.run_id, "val"), read_scores(row.run_id)) for row in rows}


def _compare(classifiers: Mapping[Repeat, Detector], distances: Mapping[Repeat, Detector]) -> list[str]:
    """Return AP alone, AP together, and both differences; [] without a common seed and fold."""
    common = [repeat for repeat in classifiers if repeat in distances]
    pairs = [(classifiers[repeat], distances[repeat]) for repeat in common]
    if not pairs or any(np.sum(each.val.labels == 0) < FEWEST for pair in pairs for each in pair):
        return []
    alone, baseline = ([pair[place].test for pair in pairs] for place in (0, 1))
    together = [combine(pair) for pair in pairs]
    differences = [paired_difference(together, other, METRICS["AP"], runs=common) for other in (alone, baseline)]
    return [f"{_mean(alone, common):.3f}", f"{_mean(together, common):.3f}", *(each.text() for each in differences)]


def _mean(scored: Sequence[Scored], repeats: Sequence[Repeat]) -> float:
    """Return the mean AP over seeds of the means over their folds, as `paired_difference` does."""
    aps = [average_precisions(each, np.ones((1, len(each.labels)), np.int64))[0] for each in scored]
    return float(mean_by_seed(np.array(aps), repeats).mean())
