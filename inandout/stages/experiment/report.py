"""Entry point `report`: the page of an experiment, with tables, tests, figures and commands of its finished cells."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
from matplotlib.figure import Figure
from mlflow.entities import RunData

from inandout.errors import InputError
from inandout.evaluation.paired_test import METRICS, Comparison
from inandout.options import StageConfig
from inandout.reporting.comparison_figures import forest_plot
from inandout.reporting.model_card import command_line
from inandout.reporting.page import Section, html_page, markdown_page
from inandout.reporting.tables import (
    Row,
    aligned,
    csv_table,
    curves,
    latex_table,
    markdown_table,
    mean_over_folds,
    unpack,
)
from inandout.stages.experiment.config import CompareConfig, ExperimentConfig, ReportConfig
from inandout.stages.experiment.grid import CONTROLS, REMARKS, ROWS, SOURCES
from inandout.stages.experiment.paired_tests import conclusion, list_tests, paired_tests
from inandout.stages.experiment.power import measured_power
from inandout.stages.experiment.sheets import sheets
from inandout.stages.experiment.with_distances import NOTE, distances_table
from inandout.stages.experiment.worth import learning_curve
from inandout.tracking.logging import describe_location
from inandout.tracking.runs import STAGE, WEIGHTS_TAG, artifact_folder, artifact_names, open_run, read_config
from inandout.tracking.store import connect

EXPERIMENT_TAG = "inandout.experiment"
"""Run tag: name and profile of an experiment."""

FIGURE = "figure.png"
"""Artifact of an experiment that shows images or features."""

_CONFIGS: dict[str, type[StageConfig]] = {"main": CompareConfig, "experiment": ExperimentConfig}


def report(config: ReportConfig) -> str:
    """Report the finished cells of an experiment as HTML, Markdown, LaTeX, CSV and PNG; print the Markdown.

    Raises:
        InputError: no experiment has the name, or the finished cells are only points of the learning curve.
    """
    connect()
    run_id = config.run or _newest(f"{config.name} {config.profile}")
    rows = unpack(artifact_folder(run_id, ROWS).read_text(encoding="utf-8"))
    if all(row.n_shot for row in rows):
        raise InputError(
            f"run = {run_id}: only points of the learning curve are finished, so the table has no row; run the same "
            "command again, and if it trains nothing, give it another source or shot"
        )
    with open_run("report", config.flat(), "", f"report of {run_id[:8]}") as run:
        mlflow.set_tag("inandout.reported", run_id)
        text = log_report(rows, run_id)
    print(f"\n{text}\n\n{describe_location(run)}")
    return text


def log_report(rows: Sequence[Row], run_id: str) -> str:
    """Log `results.html`, `.md`, `.tex`, `.csv` and `.png`, and `differences.png`; return the Markdown.

    Args:
        rows: finished cells.
        run_id: run of `main` or `experiment` that has them.
    """
    reported = mlflow.get_run(run_id)
    name = reported.data.tags.get(EXPERIMENT_TAG, "")
    paper = bool(name) and not name.startswith("anchors")
    table = [row for row in rows if not row.n_shot]
    title = f"Experiment {name}" if name else "Comparison"
    tests = paired_tests(table)
    sections = [*_sections(rows, tests, _remarks(run_id), paper), _origin(rows, run_id)]
    text = markdown_page(title, sections)
    with tempfile.TemporaryDirectory() as folder:
        written = {"md": text, "tex": latex_table(table, paper), "csv": csv_table(table)}
        written["html"] = html_page(title, [*sections, _sheets(rows)])
        for ending, content in written.items():
            (Path(folder) / f"results.{ending}").write_text(content, encoding="utf-8")
        mlflow.log_artifacts(folder)
    mlflow.log_figure(curves(table, paper), "results.png")
    if tests:
        mlflow.log_figure(_forest(tests, "AP"), "differences.png")
    return text


def _remarks(run_id: str) -> list[str]:
    """Return the remarks about the pools of a comparison; runs of earlier versions have none."""
    if REMARKS not in artifact_names(run_id):
        return []
    return artifact_folder(run_id, REMARKS).read_text(encoding="utf-8").splitlines()


def _sections(rows: Sequence[Row], tests: Sequence[Comparison], remarks: Sequence[str], paper: bool) -> list[Section]:
    """Return the sections that do not depend on the run that is reported."""
    table = [row for row in rows if not row.n_shot]
    curve = learning_curve(rows)
    note = "The paper's numbers are for KolektorSDD2 at 200x600 with Stable Diffusion 1.5." if paper else ""
    n_seeds = len({row.seed for row in table})
    several = len({row.n_aug for row in table} - {0}) > 1
    found = [
        Section(
            "Results", _paragraphs(markdown_table(table, paper), note, *remarks),
            (("Metrics against n_aug, with one standard deviation.", curves(table, paper)),) if several else (),
        ),
        Section("Setup", describe_setup(table)),
        Section("What it means for a plant", _escapes(table)),
    ]  # fmt: skip
    if tests:
        forests = [(f"Differences of {metric} with 95 % intervals.", _forest(tests, metric)) for metric in METRICS]
        found.append(Section("Differences", _paragraphs(list_tests(tests), conclusion(tests, n_seeds)), (*forests,)))
        found.append(Section("Power", measured_power(table)))
    added = _typical(table).params.get("distances") == "True"  # to every score already
    together = "" if added else distances_table(table)
    if together:
        found.append(Section("Together with distances to good parts", _paragraphs(NOTE, together)))
    if curve:
        note = (
            "Number of real defects that give the same AP without synthetic ones, by the learning curve of the source "
            "none; at few and full shot, the real defects that were used as well are included."
        )
        figure = ("AP against the number of real defects, with one standard deviation over seeds.", curve.figure)
        found.append(Section("Worth in real defects", _paragraphs(note, curve.table), (figure,)))
    titles = [title for title in dict.fromkeys(row.source for row in table) if title in CONTROLS]
    controls = [f"- {title}: {_CONTROL_NOTES[title]}" for title in titles]
    if controls:
        found.append(Section("Controls", "\n".join(controls)))
    return found


def _typical(rows: Sequence[Row]) -> RunData:
    """Return the data of the run of a typical classifier: no control with other options, if there is one."""
    special = {SOURCES[name].title for name in ("nearest", "none-steps", "two-stage")}
    return mlflow.get_run(next((row for row in rows if row.source not in special), rows[0]).run_id).data


def describe_setup(rows: Sequence[Row]) -> str:
    """Return one sentence on dataset, network and training, read from a typical classifier."""
    run = _typical(rows)
    given = {name: run.params.get(name, "-") for name in _SETUP}
    of_each = " of each kind" if given["each_kind"] == "True" else ""
    return (
        f"Data {Path(given['data']).name}, images of {given['width']}x{given['height']} ({given['fit']}); "
        f"{given['backbone']} from weights {Path(given['weights']).name} ({run.tags.get(WEIGHTS_TAG, '-')}), "
        f"freeze={given['freeze']}, head={given['head']}, tile={given['tile']}, "
        f"distances={given['distances']}; {given['optimiser']}, lr {given['lr']}, {given['epochs']} epochs, batches of "
        f"{given['batch_size']}; few shot: {given['n_shot']} real defects{of_each}."
    )


_SETUP = (
    "data", "width", "height", "fit", "backbone", "weights", "freeze", "head", "tile", "distances", "optimiser", "lr",
    "epochs", "batch_size", "n_shot", "each_kind",
)  # fmt: skip
_CONTROL_NOTES = {
    "none": "no synthetic positives; negatives are sampled as often as positives (balanced), as in all rows",
    "none, equal steps": "the same with as many training steps as with n_aug synthetic positives",
    "nearest neighbour": "never sees a defect; distance of the worst patch to patches of good training parts",
}


def _origin(rows: Sequence[Row], run_id: str) -> Section:
    """Return the section with the run, its commit and the commands."""
    run = mlflow.get_run(run_id)
    stage = run.data.tags[STAGE]
    options = _CONFIGS[stage].options()
    changed = {
        name: value
        for name, value in read_config(run_id).items()
        if name in options and value != options[name].field.default
    }
    seconds = sum({row.run_id: row.metrics.get("seconds", 0.0) for row in rows}.values())
    facts = (
        f"Run {run_id} of `{stage}`, commit {run.data.tags.get('mlflow.source.git.commit', 'unknown')}. "
        f"{len(rows)} cells took {seconds / 3600:.1f} hours of work; their run ids are in `results.csv` and `{ROWS}`."
    )
    commands = "\n".join([command_line(stage, changed), command_line("report", {"run": run_id})])
    return Section("How it was made", _paragraphs(facts, f"```\n{commands}\n```"))


def _sheets(rows: Sequence[Row]) -> Section:
    """Return the section that shows images, for the HTML page only."""
    images = sheets(rows)
    note = (
        "Ranked by the logit of the classifier that was trained on all real defects."
        if images
        else "Not shown: this needs the files of synthetic images, and a classifier without them at full shot with the "
        "same seed and fold."
    )
    return Section("Best and worst synthetic images", note, (*images,))


def _escapes(rows: Sequence[Row]) -> str:
    """Return a table of defective parts that are missed, by the threshold with 1 % false alarms on the test part."""
    lines = [["shot", "source", "n_aug", "escapes of 1,000 defective parts at 1 % false alarms"]]
    cells: dict[tuple[str, str, int], list[float]] = {}
    for row in mean_over_folds(rows):
        if "recall_at_fpr_1" in row.metrics:
            cells.setdefault((row.shot, row.source, row.n_aug), []).append(row.metrics["recall_at_fpr_1"])
    lines += [[*map(str, cell), f"{1000 * (1 - np.mean(recalls)):.0f}"] for cell, recalls in cells.items()]
    return aligned(lines)


def _forest(tests: Sequence[Comparison], metric: str) -> Figure:
    return forest_plot({test.question: test.differences[metric] for test in tests}, f"difference of {metric}")


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _newest(wanted: str) -> str:
    """Return the run id of the newest experiment with this tag and a finished cell.

    Raises:
        InputError: no such experiment has a finished cell or figure, or the newest one has images only.
    """
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(
        experiments, f"tags.`{EXPERIMENT_TAG}` = '{wanted}'", order_by=["attributes.start_time DESC"]
    )
    for run in runs:
        names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        if ROWS in names:
            return run.info.run_id
        if FIGURE in names:
            raise InputError(f"{wanted} shows images and has no table; open {artifact_folder(run.info.run_id, FIGURE)}")
    raise InputError(f"no experiment {wanted} has a finished cell or figure; run the entry point experiment first")
