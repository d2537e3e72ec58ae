"""Finished runs to typed rows, rows to tables and curves."""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inandout.data.splits import Shot
from inandout.reporting.paper_results import PUBLISHED, Estimate, Published


class Row(NamedTuple):
    """One trained classifier of a comparison."""

    shot: Shot
    source: str
    """Where its synthetic positives come from: none, MemSeg, ..."""
    n_aug: int
    seed: int
    run_id: str
    metrics: dict[str, float]


class Line(NamedTuple):
    """All seeds of one cell of a table."""

    shot: Shot
    source: str
    n_aug: int
    seeds: int
    ours: dict[str, Estimate | None]
    """By metric of `COLUMNS`; None where it is undefined for a seed."""
    paper: Published


COLUMNS = {
    "AP": "ap",
    "precision": "precision",
    "recall": "recall",
    "precision (oracle)": "oracle_precision",
    "recall (oracle)": "oracle_recall",
}
"""Heading and metric; `oracle` columns have their threshold from the test set."""
CURVES = {"AP": "ap", "precision (oracle)": "oracle_precision", "recall (oracle)": "oracle_recall"}
"""What the paper has, too."""


def pack(rows: Sequence[Row]) -> str:
    """As JSON."""
    return json.dumps([row._asdict() for row in rows], indent=1)


def unpack(text: str) -> list[Row]:
    """What `pack` wrote."""
    return [Row(**row) for row in json.loads(text)]


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Mean and spread over seeds, in order of appearance."""
    cells: dict[tuple[Shot, str, int], list[Row]] = {}
    for row in rows:
        cells.setdefault((row.shot, row.source, row.n_aug), []).append(row)
    return [
        Line(
            *cell, len(found), {name: _estimate([row.metrics.get(name) for row in found]) for name in COLUMNS.values()},
            PUBLISHED.get(cell, {}),
        )
        for cell, found in cells.items()
    ]  # fmt: skip


def _estimate(values: Sequence[float | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Estimate(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None)


def markdown_table(rows: Sequence[Row], paper: bool = False) -> str:
    """A line for each shot, source and `n_aug`: mean (standard deviation), the best of several of a shot in bold.

    With `paper` its numbers stand beside ours.
    """
    return aligned(_texts(summarise(rows), paper, "**{}**"))


def latex_table(rows: Sequence[Row], paper: bool = False) -> str:
    """The same for a document that uses booktabs."""
    head, *lines = _texts(summarise(rows), paper, r"\textbf{{{}}}")
    table = pd.DataFrame(lines, columns=head).map(lambda text: text.replace("&", r"\&").replace("–", "--"))
    return str(table.rename(columns={"n_aug": r"$N_{aug}$"}).to_latex(index=False))


def csv_table(rows: Sequence[Row]) -> str:
    """Numbers alone: one column for a mean, one for its spread, ours and the paper's."""
    records = []
    for line in summarise(rows):
        record: dict[str, object] = {"shot": line.shot, "source": line.source, "n_aug": line.n_aug, "seeds": line.seeds}
        for who, known in (("", line.ours), ("paper_", line.paper)):
            for name in COLUMNS.values():
                found = known.get(name)
                record |= {f"{who}{name}": found and found.mean, f"{who}{name}_std": found and found.spread}
        runs = [row.run_id for row in rows if (row.shot, row.source, row.n_aug) == line[:3]]
        records.append(record | {"runs": " ".join(runs)})
    return str(pd.DataFrame(records).dropna(axis="columns", how="all").to_csv(index=False))


def _texts(lines: Sequence[Line], paper: bool, bold: str) -> list[list[str]]:
    """Head and cells. Sources with several `n_aug` get their average, of means and of spreads, as in the paper."""
    theirs = [f"paper's {heading}" for heading in CURVES] if paper else []
    texts = [["shot", "source", "n_aug", "seeds", *COLUMNS, *theirs]]
    best = {
        (shot, name): max(found.mean for line in lines if line.shot == shot and (found := line.ours[name]))
        for shot in {line.shot for line in lines}
        for name in COLUMNS.values()
        if sum(line.ours[name] is not None for line in lines if line.shot == shot) > 1
    }
    for (shot, source), group in groupby(lines, key=lambda line: line[:2]):
        same = list(group)
        for line in same:
            ours = [
                bold.format(_words(found)) if found and found.mean == best.get((shot, name)) else _words(found)
                for name, found in line.ours.items()
            ]
            printed = [_words(line.paper.get(name), "–") for name in CURVES.values()]
            texts.append([shot, source, str(line.n_aug), str(line.seeds), *ours, *(printed if paper else [])])
        if len(same) > 1:
            ours = [_words(_average([line.ours[name] for line in same])) for name in COLUMNS.values()]
            printed = [_words(_average([line.paper.get(name) for line in same]), "–") for name in CURVES.values()]
            seeds = _range([line.seeds for line in same])
            texts.append([shot, source, "average", seeds, *ours, *(printed if paper else [])])
    return texts


def _range(numbers: Sequence[int]) -> str:
    """`4`, or `1-4` where they differ."""
    return "-".join(map(str, sorted({min(numbers), max(numbers)})))


def _average(known: Sequence[Estimate | None]) -> Estimate | None:
    found = [each for each in known if each]
    if len(found) < len(known):
        return None
    spreads = [each.spread for each in found if each.spread is not None]
    return Estimate(float(np.mean([each.mean for each in found])), float(np.mean(spreads)) if spreads else None)


def _words(found: Estimate | None, missing: str = "undefined") -> str:
    """`0.782 (0.030)`; the spread is the sample standard deviation, and absent for one seed."""
    if found is None:
        return missing
    return f"{found.mean:.3f}" + (f" ({found.spread:.3f})" if found.spread is not None else "")


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells, the first line of which is its head."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def curves(rows: Sequence[Row], paper: bool = False) -> Figure:
    """AP, precision and recall against `n_aug`: a row of axes a shot, a line a source, bars one standard deviation.

    With `paper` its numbers are dotted lines of the same colour (its Figures 6 and 7).
    """
    lines = summarise(rows)
    shots = list(dict.fromkeys(line.shot for line in lines))
    sources = list(dict.fromkeys(line.source for line in lines))
    step = max((line.n_aug for line in lines), default=1) / 100
    figure = Figure(figsize=(4 * len(CURVES), 3.4 * len(shots)), layout="constrained")
    for axes_of_shot, shot in zip(figure.subplots(len(shots), len(CURVES), squeeze=False), shots, strict=True):
        for axes, (heading, name) in zip(axes_of_shot, CURVES.items(), strict=True):
            for number, source in enumerate(sources):
                of = sorted((line for line in lines if line[:2] == (shot, source)), key=lambda line: line.n_aug)
                shift, colour = step * (number - len(sources) / 2), f"C{number}"
                _draw_curve(axes, [(line.n_aug + shift, line.ours[name]) for line in of], colour, "o-", source)
                if paper:
                    theirs = [(line.n_aug + shift, line.paper.get(name)) for line in of]
                    _draw_curve(axes, theirs, colour, "x:", f"{source}, paper")
            axes.set(title=f"{shot} shot: {heading}", xlabel="n_aug", ylim=(0, 1))
    named = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", ncols=len(sources))
    return figure


def _draw_curve(
    axes: Axes, points: Sequence[tuple[float, Estimate | None]], colour: str, style: str, label: str
) -> None:
    known = [(place, found.mean, found.spread or 0.0) for place, found in points if found]
    if known:
        places, means, spreads = zip(*known, strict=True)
        axes.errorbar(places, means, spreads, fmt=style, color=colour, capsize=3, label=label)
