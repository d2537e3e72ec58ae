"""Entry point `report`: tables and curves of the finished cells of an experiment."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlflow

from inandout.errors import InputError
from inandout.reporting.tables import Row, csv_table, curves, latex_table, markdown_table, unpack
from inandout.stages.experiment.config import ReportConfig
from inandout.stages.experiment.grid import ROWS
from inandout.stages.experiment.paired_tests import paired_tests
from inandout.tracking.logging import experiment_url
from inandout.tracking.runs import artifact_folder, open_run
from inandout.tracking.store import connect

EXPERIMENT_TAG = "inandout.experiment"
"""Run tag: name and profile of an experiment."""

FIGURE = "figure.png"
"""Artifact of an experiment that shows images or features."""


def report(config: ReportConfig) -> str:
    """Report the finished cells of an experiment as Markdown, LaTeX, CSV and PNG; print and return the Markdown."""
    connect()
    run_id = config.run or _newest(f"{config.name} {config.profile}")
    rows = unpack(artifact_folder(run_id, ROWS).read_text(encoding="utf-8"))
    with open_run("report", config.flat(), "", f"report of {run_id[:8]}") as run:
        mlflow.set_tag("inandout.reported", run_id)
        text = log_report(rows)
    print(f"\n{text}\n\n{experiment_url(run)}")
    return text


def log_report(rows: Sequence[Row]) -> str:
    """Log `results.md` with the paired tests, `.tex`, `.csv` and `.png`; return the Markdown."""
    note = "The paper's numbers are for KolektorSDD2 at 200x600 with Stable Diffusion 1.5."
    text = f"{markdown_table(rows, paper=True)}\n\n{note}\n\n{paired_tests(rows)}".rstrip()
    with tempfile.TemporaryDirectory() as folder:
        written = {"md": text, "tex": latex_table(rows, paper=True), "csv": csv_table(rows)}
        for ending, content in written.items():
            (Path(folder) / f"results.{ending}").write_text(content, encoding="utf-8")
        mlflow.log_artifacts(folder)
    mlflow.log_figure(curves(rows, paper=True), "results.png")
    return text


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
