"""Say which difference of AP a comparison can find, before and after running it."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.stats import spearmanr

from inandout.data.prepare import CheckedData
from inandout.evaluation.metrics import Labels, number_parts
from inandout.evaluation.power import POWER, Assumptions, detectable_difference
from inandout.reporting.tables import Row, distinct_runs, mean_over_folds
from inandout.stages.classify.scores import read_scores
from inandout.stages.experiment.grid import Cell


def power(cells: Sequence[Cell], data: CheckedData, expected_ap: float) -> str:
    """Return a sentence on the detectable difference of AP between two sources of `cells`."""
    first = cells[0].config
    samples = data.split(first.data, first.seed)
    covers_all = len({cell.config.data.fold for cell in cells}) > 1
    test = [sample for sample in samples if covers_all or sample.split == "test"]
    labels = np.array([sample.label for sample in test], np.int64)
    assumed = Assumptions(ap=expected_ap)
    found = _detectable(
        [(labels, [sample.group for sample in test])], len({c.config.own_seed() for c in cells}), assumed
    )
    return (
        f"power: {found}. Assumed: AP {assumed.ap:g}, correlation of scores {assumed.correlation:g}, standard "
        f"deviation of AP over seeds {assumed.seed_spread:g}"
    )


def _detectable(tests: Sequence[tuple[Labels, Sequence[str]]], seeds: int, assumed: Assumptions) -> str:
    """Return the detectable difference for labels and groups of test parts; two numbers if parts have several images.

    The second number is for parts whose images all have the same score. The truth lies between.
    """
    positives, negatives = (sum(int((labels == label).sum()) for labels, _ in tests) for label in (1, 0))
    parts = sum(len(np.unique(number_parts(groups, len(labels))[labels == 1])) for labels, groups in tests)
    found = detectable_difference(positives, negatives, seeds, assumed)
    plural = "s" * (seeds > 1)
    text = (
        f"with {positives} defective images of {parts} parts, {negatives} good images and {seeds} seed{plural}, a "
        f"difference of AP of {found:.3f} is found in {POWER:.0%} of comparisons (two-sided 5 %)"
    )
    if parts != positives:
        grouped = detectable_difference(positives, negatives, seeds, assumed, positives / parts)
        text += f", or {grouped:.3f} if the images of a part do not differ"
    return text if seeds > 1 else f"{text}; the interval of one seed leaves out the variance of training"


def measured_power(rows: Sequence[Row]) -> str:
    """Return the detectable difference of finished rows, with AP, correlation and spread as they were measured.

    Correlation and spread are means over sources; the correlation is that of the scores of two sources over the parts
    of one label. Sources with the same run for several seeds have no spread, and are left out of it.
    """
    defined = [row for row in rows if "ap" in row.metrics]
    sources = list(dict.fromkeys((row.shot, row.source, row.n_aug) for row in defined))
    first = {key: next(row for row in defined if (row.shot, row.source, row.n_aug) == key) for key in sources}
    by_source: dict[tuple[object, ...], list[float]] = {}
    for row in distinct_runs(mean_over_folds(defined)):
        by_source.setdefault((row.shot, row.source, row.n_aug), []).append(row.metrics["ap"])
    spreads = [np.std(aps, ddof=1) for aps in by_source.values() if len(aps) > 1]
    assumed = Assumptions(
        ap=float(np.mean([ap for aps in by_source.values() for ap in aps])),
        correlation=float(np.clip(_mean_correlation([*first.values()]), 0, 0.99)),
        seed_spread=float(np.mean(spreads)) if spreads else Assumptions().seed_spread,
    )
    scores = [read_scores(run_id) for run_id in {row.fold: row.run_id for row in defined}.values()]
    tests = [(scored.labels, scored.groups) for scored in scores]
    found = _detectable(tests, max(map(len, by_source.values())), assumed)
    return (
        f"{found[0].upper()}{found[1:]}. Measured: mean AP {assumed.ap:.2f}, correlation of scores "
        f"{assumed.correlation:.2f}, standard deviation of AP over seeds {assumed.seed_spread:.3f}"
        f"{'' if spreads else ' (assumed)'}."
    )


def _mean_correlation(rows: Sequence[Row]) -> float:
    """Return the mean rank correlation of the scores of pairs of rows with the same test part, within each label."""
    scores = [read_scores(row.run_id) for row in rows]
    found = [
        spearmanr(ours.logits[ours.labels == label], theirs.logits[ours.labels == label]).statistic
        for (a, ours), (b, theirs) in combinations(zip(rows, scores, strict=True), 2)
        if (a.seed, a.fold) == (b.seed, b.fold) and a.source != b.source
        for label in (0, 1)
    ]
    return float(np.nanmean(found)) if np.isfinite(found).any() else Assumptions().correlation
