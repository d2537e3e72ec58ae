"""Entry point `main`: compare classifiers with and without synthetic defects over seeds, in one table."""

import mlflow

from inandout.data.manifest import fingerprint
from inandout.data.prepare import read_data
from inandout.fingerprints import Identity
from inandout.reporting.tables import Row, markdown_table
from inandout.stages.experiment.cells import measure_cells, refuse_impossible_cells
from inandout.stages.experiment.config import CompareConfig
from inandout.stages.experiment.paired_tests import conclusion, paired_tests
from inandout.tracking.logging import experiment_url, log_dataset
from inandout.tracking.runs import open_run
from inandout.tracking.store import connect


def compare(config: CompareConfig) -> list[Row]:
    """Train and evaluate every cell, reuse finished runs, print and log the table."""
    connect()
    name, cells = config.data.data, config.cells()
    data = read_data(name)
    inputs = {"data": fingerprint(data.samples)}
    refuse_impossible_cells(cells, data)
    key = Identity("main", __name__, config, inputs, ignored=["data"]).fingerprint
    with open_run("main", config.flat(), key, f"main {config.sources} on {name}") as run:
        log_dataset(name, inputs["data"], data.samples)
        rows = measure_cells(cells, data, config.engine)
        tests = paired_tests(rows)
        parts = [markdown_table(rows), tests, conclusion(tests, len(config.seeds.split(",")))]
        text = "\n\n".join(part for part in parts if part)
        mlflow.log_text(text, "results.md")
    print(f"\n{experiment_url(run)}\n\n{text}")
    return rows
