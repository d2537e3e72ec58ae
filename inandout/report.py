"""Finished runs to typed rows, rows to tables."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One trained classifier of a comparison."""

    shot: str
    source: str
    """Where its synthetic positives come from: none, MemSeg, ..."""
    seed: int
    run_id: str
    metrics: dict[str, float]


COLUMNS = {
    "AP": "ap",
    "precision": "precision",
    "recall": "recall",
    "precision (oracle)": "oracle_precision",
    "recall (oracle)": "oracle_recall",
}
"""Heading and metric; `oracle` columns have their threshold from the test set."""


def markdown_table(rows: Sequence[Row]) -> str:
    """Mean (standard deviation) over seeds, one line for each shot and source, in order of appearance."""
    lines = [["shot", "source", "seeds", *COLUMNS]]
    for shot, source in dict.fromkeys((row.shot, row.source) for row in rows):
        cell = [row for row in rows if (row.shot, row.source) == (shot, source)]
        numbers = [_mean_and_spread([row.metrics.get(metric) for row in cell]) for metric in COLUMNS.values()]
        lines.append([shot, source, str(len(cell)), *numbers])
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells, the first line of which is its head."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _mean_and_spread(values: Sequence[float | None]) -> str:
    """`.782 (.030)`; the spread is the sample standard deviation, and absent for one seed."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "undefined"
    spread = f" ({np.std(known, ddof=1):.3f})" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{spread}"
