"""The end of a search: its best points and the paper's, with fresh seeds, on the test part."""

from collections.abc import Sequence
from typing import NamedTuple

from inandout.data.prepare import CheckedData
from inandout.evaluation.paired_test import METRICS, Difference, paired_difference
from inandout.reporting.tables import Row, markdown_table
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import read_scores
from inandout.stages.classify.train import classify

PAPER = "the paper's choice"


class FinalReport(NamedTuple):
    """What came out."""

    table: str
    sentence: str
    difference: Difference | None
    """Of the first finalist's AP over the paper's choice; None where AP is undefined or both are the same."""


def measure_finalists(
    finalists: dict[str, list[ClassifyConfig]], paper: list[ClassifyConfig], data: CheckedData
) -> FinalReport:  # fmt: skip
    """Train and measure all, or find the runs that did.

    Args:
        finalists: name to configurations, one a fresh seed, the best by validation first. The sentence is about that
            one: to choose among them by what is measured here would be to choose on the test part.
        paper: the same seeds with the paper's alpha and a half of diffusion.
        data: the data set.
    """
    rows = [
        Row(config.scenario.shot, name, config.mix.n_aug, config.own_seed(), result.run_id, result.metrics)
        for name, configs in (finalists | {PAPER: paper}).items()
        for config, result in ((config, classify(config, data)) for config in configs)
    ]
    name, chosen = next(iter(finalists.items()))
    same = chosen == paper
    difference = None if same else _difference(rows, name)
    return FinalReport(markdown_table(rows), _sentence(name, same, difference, len(paper)), difference)


def _difference(rows: Sequence[Row], name: str) -> Difference | None:
    if any("ap" not in row.metrics for row in rows):
        return None
    ours, theirs = ([read_scores(row.run_id) for row in rows if row.source == who] for who in (name, PAPER))
    return paired_difference(ours, theirs, METRICS["AP"])


def _sentence(name: str, same: bool, difference: Difference | None, seeds: int) -> str:
    if same:
        return f"The search did not pay: what is best by validation is {PAPER}."
    if difference is None:
        return "Whether the search paid cannot be said: AP is undefined on the test part, which lacks a class."
    answer = "paid" if difference.low > 0 else "did not pay"
    return (
        f"The search {answer}: on the test part, with {seeds} fresh seeds, AP of {name} against {PAPER} is "
        f"{difference.mean:+.3f} (95 % {difference.low:+.3f} .. {difference.high:+.3f}): {difference.verdict()}."
    )
