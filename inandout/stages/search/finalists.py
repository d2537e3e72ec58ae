"""Final comparison of a search: the best points and the default on the test part, with fresh seeds."""

from collections.abc import Sequence
from typing import NamedTuple

from inandout.data.prepare import CheckedData
from inandout.evaluation.paired_test import METRICS, Difference, paired_difference
from inandout.reporting.tables import Row, markdown_table
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import read_scores
from inandout.stages.classify.train import classify

DEFAULT = "the default"
"""Name of the default point: the paper's choice with Stable Diffusion."""


class FinalReport(NamedTuple):
    """Result of the final comparison."""

    table: str
    sentence: str
    difference: Difference | None
    """AP of the first finalist minus AP of the default; None if AP is undefined or both are equal."""


def measure_finalists(
    finalists: dict[str, list[ClassifyConfig]], default: list[ClassifyConfig], data: CheckedData
) -> FinalReport:  # fmt: skip
    """Train and evaluate all classifiers, or reuse finished runs.

    Args:
        finalists: name to configurations, one per fresh seed, best validation result first. The conclusion is about
            the first finalist only, because a choice among finalists here would select on the test part.
        default: configurations of the default, with the same seeds.
        data: the dataset.
    """
    rows = [
        Row(config.scenario.shot, name, config.mix.n_aug, config.own_seed(), result.run_id, result.metrics)
        for name, configs in (finalists | {DEFAULT: default}).items()
        for config, result in ((config, classify(config, data)) for config in configs)
    ]
    name, chosen = next(iter(finalists.items()))
    same = chosen == default
    difference = None if same else _difference(rows, name)
    return FinalReport(markdown_table(rows), _sentence(name, same, difference, len(default)), difference)


def _difference(rows: Sequence[Row], name: str) -> Difference | None:
    if any("ap" not in row.metrics for row in rows):
        return None
    ours, theirs = ([read_scores(row.run_id) for row in rows if row.source == who] for who in (name, DEFAULT))
    return paired_difference(ours, theirs, METRICS["AP"])


def _sentence(name: str, same: bool, difference: Difference | None, seeds: int) -> str:
    if same:
        return f"The search did not pay: the best point by validation is {DEFAULT}."
    if difference is None:
        return "It is unknown whether the search paid: AP is undefined because the test part lacks a class."
    answer = "paid" if difference.low > 0 else "did not pay"
    return (
        f"The search {answer}: on the test part, with {seeds} fresh seeds, AP of {name} against {DEFAULT} is "
        f"{difference.text()}: {difference.verdict()}."
    )
