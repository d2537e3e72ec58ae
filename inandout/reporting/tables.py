"""Tables and curves of finished runs."""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from inandout.data.config import Shot
from inandout.reporting.paper_results import DIAG, PUBLISHED, Estimate, Published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Row(NamedTuple):
    """Metrics of one trained classifier of a comparison."""

    shot: Shot
    source: str
    """Source of the synthetic positives: none, MemSeg, ..."""
    n_aug: int
    seed: int
    run_id: str
    metrics: dict[str, float]
    fold: str = ""
    """K/N of cross-validation; empty = the split of the dataset."""
    n_shot: int = 0
    """Number of real positives of a point of the learning curve; 0 = a row of the table."""


class Line(NamedTuple):
    """Metrics of one shot, source and `n_aug`, averaged over seeds."""

    shot: Shot
    source: str
    n_aug: int
    seeds: int
    ours: dict[str, Estimate | None]
    """Maps the metrics of `COLUMNS` to estimates; None if the metric is undefined for a seed."""
    paper: Published


COLUMNS = {
    "AP": "ap",
    "precision": "precision",
    "recall": "recall",
    "precision (oracle)": "oracle_precision",
    "recall (oracle)": "oracle_recall",
}
"""Maps headings to metrics; `oracle` metrics use a threshold chosen on the test set."""
CURVES = {"AP": "ap", "precision (oracle)": "oracle_precision", "recall (oracle)": "oracle_recall"}
"""Metrics that the paper also reports."""
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
"""Characters that LaTeX reads as commands; the name of a source can have any."""


def pack(rows: Sequence[Row]) -> str:
    """Serialise rows as JSON."""
    return json.dumps([row._asdict() for row in rows], indent=1)


def unpack(text: str) -> list[Row]:
    """Parse the output of `pack`."""
    return [Row(**row) for row in json.loads(text)]


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Return mean and standard deviation over seeds, in order of appearance; see `distinct_runs`."""
    cells: dict[tuple[Shot, str, int], list[Row]] = {}
    for row in distinct_runs(mean_over_folds(rows)):
        cells.setdefault((row.shot, row.source, row.n_aug), []).append(row)
    return [
        Line(
            *cell, len(seeds), {name: _estimate([row.metrics.get(name) for row in seeds]) for name in COLUMNS.values()},
            (PUBLISHED | DIAG).get(cell, {}),
        )
        for cell, seeds in cells.items()
    ]  # fmt: skip


def mean_over_folds(rows: Sequence[Row]) -> list[Row]:
    """Return one row per shot, source, `n_aug`, seed and `n_shot`, with the means of metrics that all folds define."""
    cells: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        cells.setdefault((row.shot, row.source, row.n_aug, row.seed, row.n_shot), []).append(row)
    return [
        folds[0]._replace(
            metrics={
                name: float(np.mean([row.metrics[name] for row in folds]))
                for name in folds[0].metrics
                if all(name in row.metrics for row in folds)
            }
        )
        for folds in cells.values()
    ]


def distinct_runs(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without further seeds of the same run; `repeat=training` has them for nearest neighbours."""
    return list({(row.shot, row.source, row.n_aug, row.run_id): row for row in rows}.values())


def _estimate(values: Sequence[float | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Estimate(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None)


def markdown_table(rows: Sequence[Row], paper: bool = False) -> str:
    """Return a Markdown table of mean (standard deviation), one row per shot, source and `n_aug`.

    The best value of each shot is bold if there are several. With `paper`, the published values are added as columns.
    """
    return aligned(_texts(summarise(rows), paper, "**{}**"))


def latex_table(rows: Sequence[Row], paper: bool = False) -> str:
    """Return the table of `markdown_table` as LaTeX with booktabs."""
    escaped = [line._replace(source=line.source.translate(_LATEX)) for line in summarise(rows)]
    head, *lines = _texts(escaped, paper, r"\textbf{{{}}}")
    table = pd.DataFrame(lines, columns=head).map(lambda text: text.replace("–", "--"))
    return str(table.rename(columns={"n_aug": r"$N_{aug}$"}).to_latex(index=False))


def csv_table(rows: Sequence[Row]) -> str:
    """Return a CSV table with the mean and the standard deviation of every metric, ours and the paper's."""
    records = []
    for line in summarise(rows):
        record: dict[str, object] = {"shot": line.shot, "source": line.source, "n_aug": line.n_aug, "seeds": line.seeds}
        for prefix, estimates in (("", line.ours), ("paper_", line.paper)):
            for name in COLUMNS.values():
                estimate = estimates.get(name)
                record |= {
                    f"{prefix}{name}": estimate and estimate.mean,
                    f"{prefix}{name}_std": estimate and estimate.spread,
                }
        runs = [row.run_id for row in rows if (row.shot, row.source, row.n_aug) == line[:3]]
        records.append(record | {"runs": " ".join(runs)})
    return str(pd.DataFrame(records).dropna(axis="columns", how="all").to_csv(index=False))


def _texts(lines: Sequence[Line], paper: bool, bold: str) -> list[list[str]]:
    """Return header and cells; sources with several `n_aug` get an average of means and deviations, as in the paper."""
    paper_columns = [f"paper's {heading}" for heading in CURVES] if paper else []
    texts = [["shot", "source", "n_aug", "seeds", *COLUMNS, *paper_columns]]
    best = {
        (shot, name): max(estimate.mean for line in lines if line.shot == shot and (estimate := line.ours[name]))
        for shot in {line.shot for line in lines}
        for name in COLUMNS.values()
        if sum(line.ours[name] is not None for line in lines if line.shot == shot) > 1
    }
    for (shot, source), group in groupby(lines, key=lambda line: line[:2]):
        group_lines = list(group)
        for line in group_lines:
            ours = [
                bold.format(_text(estimate))
                if estimate and estimate.mean == best.get((shot, name))
                else _text(estimate)
                for name, estimate in line.ours.items()
            ]
            published = [_text(line.paper.get(name), "–") for name in CURVES.values()]
            texts.append([shot, source, str(line.n_aug), str(line.seeds), *ours, *(published if paper else [])])
        if len(group_lines) > 1:
            ours = [_text(_average([line.ours[name] for line in group_lines])) for name in COLUMNS.values()]
            published = [
                _text(_average([line.paper.get(name) for line in group_lines]), "–") for name in CURVES.values()
            ]
            seeds = _range([line.seeds for line in group_lines])
            texts.append([shot, source, "average", seeds, *ours, *(published if paper else [])])
    return texts


def _range(numbers: Sequence[int]) -> str:
    """Return `4` if all numbers are equal, otherwise `1-4`."""
    return "-".join(map(str, sorted({min(numbers), max(numbers)})))


def _average(estimates: Sequence[Estimate | None]) -> Estimate | None:
    known = [estimate for estimate in estimates if estimate]
    if len(known) < len(estimates):
        return None
    spreads = [estimate.spread for estimate in known if estimate.spread is not None]
    return Estimate(float(np.mean([estimate.mean for estimate in known])), float(np.mean(spreads)) if spreads else None)


def _text(estimate: Estimate | None, missing: str = "undefined") -> str:
    """Return `0.782 (0.030)`, or the mean alone for a single seed."""
    if estimate is None:
        return missing
    return f"{estimate.mean:.3f}" + (f" ({estimate.spread:.3f})" if estimate.spread is not None else "")


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns; the first line is the header."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def curves(rows: Sequence[Row], paper: bool = False) -> "Figure":
    """Plot AP, precision and recall against `n_aug`, with one row of axes per shot and one line per source.

    Error bars show one standard deviation. With `paper`, published values are dotted lines of the same colour
    (Figures 6 and 7 of the paper).
    """
    from matplotlib.figure import Figure

    lines = summarise(rows)
    shots = list(dict.fromkeys(line.shot for line in lines))
    sources = list(dict.fromkeys(line.source for line in lines))
    step = max((line.n_aug for line in lines), default=1) / 100
    figure = Figure(figsize=(4 * len(CURVES), 3.4 * len(shots)), layout="constrained")
    for axes_of_shot, shot in zip(figure.subplots(len(shots), len(CURVES), squeeze=False), shots, strict=True):
        for axes, (heading, name) in zip(axes_of_shot, CURVES.items(), strict=True):
            for number, source in enumerate(sources):
                curve = sorted((line for line in lines if line[:2] == (shot, source)), key=lambda line: line.n_aug)
                shift, colour = step * (number - len(sources) / 2), f"C{number}"
                _draw_curve(axes, [(line.n_aug + shift, line.ours[name]) for line in curve], colour, "o-", source)
                if paper:
                    published = [(line.n_aug + shift, line.paper.get(name)) for line in curve]
                    _draw_curve(axes, published, colour, "x:", f"{source}, paper")
            axes.set(title=f"{shot} shot: {heading}", xlabel="n_aug", ylim=(0, 1))
    handles = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(sources))
    return figure


def _draw_curve(
    axes: "Axes", points: Sequence[tuple[float, Estimate | None]], colour: str, style: str, label: str
) -> None:
    known = [(x, estimate.mean, estimate.spread or 0.0) for x, estimate in points if estimate]
    if known:
        xs, means, spreads = zip(*known, strict=True)
        axes.errorbar(xs, means, spreads, fmt=style, color=colour, capsize=3, label=label)
