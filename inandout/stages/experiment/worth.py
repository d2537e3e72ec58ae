"""Say how many real defects each source of a comparison is worth."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from inandout.evaluation.metrics import Scored
from inandout.evaluation.paired_test import Repeat
from inandout.evaluation.worth import worth_in_real_defects
from inandout.reporting.comparison_figures import learning_curve_plot
from inandout.reporting.paper_results import Estimate
from inandout.reporting.tables import Row, aligned, mean_over_folds
from inandout.stages.classify.scores import read_scores
from inandout.stages.experiment.grid import SOURCES


class LearningCurve(NamedTuple):
    """The learning curve of a comparison, and the worth of its rows."""

    table: str
    figure: Figure


def learning_curve(rows: Sequence[Row]) -> LearningCurve | None:
    """Return the worth of every row but `none` and `none-steps`, and the curve with their AP; None without a curve.

    A row is compared on the seeds and folds that it shares with every point of the curve.
    """
    rows = [row for row in rows if "ap" in row.metrics]
    points = {
        number: [row for row in rows if row.n_shot == number] for number in sorted({r.n_shot for r in rows} - {0})
    }
    if not points:
        return None
    without = {SOURCES["none"].title, SOURCES["none-steps"].title}
    table = [["shot", "source", "n_aug", "AP", "worth in real defects"]]
    levels: dict[str, float] = {}
    for cell in dict.fromkeys((r.shot, r.source, r.n_aug) for r in rows if not r.n_shot and r.source not in without):
        kept = [row for row in rows if (row.shot, row.source, row.n_aug, row.n_shot) == (*cell, 0)]
        common = _common_repeats([kept, *points.values()])
        if not common:
            continue
        curve = {number: _scores(point, common) for number, point in points.items()}
        worth = worth_in_real_defects(curve, _scores(kept, common), common)
        ap = float(np.mean([row.metrics["ap"] for row in mean_over_folds(kept)]))
        levels[f"{cell[0]} shot, {cell[1]}"] = ap
        table.append([*map(str, cell), f"{ap:.3f}", worth.sentence([*points])])
    estimates = {number: _estimate(point) for number, point in points.items()}
    return LearningCurve(aligned(table), learning_curve_plot(estimates, levels))


def _common_repeats(sides: Sequence[Sequence[Row]]) -> list[Repeat]:
    """Return the seeds and folds that all sides have, with a defined AP."""
    found = [{(row.seed, row.fold) for row in side if "ap" in row.metrics} for side in sides]
    return sorted(set.intersection(*found))


def _scores(rows: Sequence[Row], repeats: Sequence[Repeat]) -> list[Scored]:
    runs = {(row.seed, row.fold): row.run_id for row in rows}
    return [read_scores(runs[repeat]) for repeat in repeats]


def _estimate(rows: Sequence[Row]) -> Estimate:
    aps = [row.metrics["ap"] for row in mean_over_folds(rows)]
    return Estimate(float(np.mean(aps)), float(np.std(aps, ddof=1)) if len(aps) > 1 else None)
