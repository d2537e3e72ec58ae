"""Say which difference of AP a comparison can find, before and after running it."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.stats import spearmanr

from inandout.data.manifest import Sample
from inandout.data.prepare import CheckedData
from inandout.evaluation.metrics import number_parts
from inandout.evaluation.power import POWER, Assumptions, detectable_difference
from inandout.reporting.tables import Row, mean_over_folds
from inandout.stages.classify.scores import read_scores
from inandout.stages.experiment.grid import Cell


def power(cells: Sequence[Cell], data: CheckedData, expected_ap: float) -> str:
    """Return a sentence on the detectable difference of AP between two sources of `cells`.

    Images of one group count as one part. If a label has more images than groups, the second number counts images: the
    truth lies between, as the images of a group differ more or less.
    """
    first = cells[0].config
    seeds = len({cell.config.seed for cell in cells})
    samples = data.split(first.data, first.seed)
    test = list(samples) if _covers_all(cells) else [sample for sample in samples if sample.split == "test"]
    assumed = Assumptions(ap=expected_ap)
    positives, negatives = (_count_parts(test, label) for label in (1, 0))
    found = detectable_difference(positives, negatives, seeds, assumed)
    text = (
        f"power: with {positives} defective and {negatives} good parts and {seeds} seed{'s' * (seeds > 1)}, a "
        f"difference of AP of {found:.3f} is found in {POWER:.0%} of comparisons (two-sided 5 %)"
    )
    images = [sum(sample.label == label for sample in test) for label in (1, 0)]
    if images != [positives, negatives]:
        as_parts = detectable_difference(*images, seeds, assumed)
        text += f"; {as_parts:.3f} if all {images[0]} and {images[1]} images were independent"
    return (
        f"{text}. Assumed: AP {assumed.ap:g}, correlation of scores {assumed.correlation:g}, standard deviation of AP "
        f"over seeds {assumed.seed_spread:g}"
    )


def _covers_all(cells: Sequence[Cell]) -> bool:
    """Return whether the folds of the cells together test every part."""
    return len({cell.config.data.fold for cell in cells}) > 1


def _count_parts(samples: Sequence[Sample], label: int) -> int:
    groups = [sample.group for sample in samples if sample.label == label]
    return len(set(number_parts(groups, len(groups)).tolist()))


def measured_power(rows: Sequence[Row]) -> str:
    """Return the detectable difference of finished rows, with AP, correlation and spread as they were measured.

    Correlation and spread are means over sources; the correlation is that of the scores of two sources over the parts
    of one label.
    """
    defined = [row for row in rows if "ap" in row.metrics]
    sources = list(dict.fromkeys((row.shot, row.source, row.n_aug) for row in defined))
    first = {key: next(row for row in defined if (row.shot, row.source, row.n_aug) == key) for key in sources}
    by_source: dict[tuple[object, ...], list[float]] = {}
    for row in mean_over_folds(defined):
        by_source.setdefault((row.shot, row.source, row.n_aug), []).append(row.metrics["ap"])
    spreads = [np.std(aps, ddof=1) for aps in by_source.values() if len(aps) > 1]
    assumed = Assumptions(
        ap=float(np.mean([ap for aps in by_source.values() for ap in aps])),
        correlation=float(np.clip(_mean_correlation([*first.values()]), 0, 0.99)),
        seed_spread=float(np.mean(spreads)) if spreads else Assumptions().seed_spread,
    )
    folds = {row.fold: row.run_id for row in defined}
    scores = [read_scores(run_id) for run_id in folds.values()]
    positives, negatives = (
        sum(len(set(number_parts(s.groups, len(s.labels))[s.labels == label].tolist())) for s in scores)
        for label in (1, 0)
    )
    seeds = max(map(len, by_source.values()))
    found = detectable_difference(positives, negatives, seeds, assumed)
    plural, source = "s" * (seeds > 1), "" if spreads else " (assumed)"
    return (
        f"With {positives} defective and {negatives} good parts and {seeds} seed{plural}, a difference of AP of "
        f"{found:.3f} is found in {POWER:.0%} of comparisons (two-sided 5 %). Measured: mean AP {assumed.ap:.2f}, "
        f"correlation of scores {assumed.correlation:.2f}, standard deviation of AP over seeds "
        f"{assumed.seed_spread:.3f}{source}."
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
