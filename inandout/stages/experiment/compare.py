"""Entry point `main`: compare classifiers with and without synthetic defects over seeds, in one table."""

import mlflow

from inandout.data.manifest import fingerprint
from inandout.data.prepare import read_data
from inandout.fingerprints import Identity
from inandout.reporting.tables import Row, markdown_table
from inandout.stages.experiment.cells import list_remarks, measure_cells, refuse_impossible_cells
from inandout.stages.experiment.config import CompareConfig
from inandout.stages.experiment.cost import estimate
from inandout.stages.experiment.paired_tests import conclusion, list_tests, paired_tests
from inandout.stages.experiment.plan import equal_steps, plan_cells
from inandout.stages.experiment.power import power
from inandout.stages.experiment.report import describe_setup
from inandout.stages.experiment.worth import learning_curve
from inandout.tracking.logging import describe_location, log_dataset
from inandout.tracking.runs import open_run
from inandout.tracking.store import connect


def plan(config: CompareConfig) -> str:
    """Print the estimated cost and power of `main` without training or drawing."""
    connect()
    data = read_data(config.data.data)
    cells = equal_steps(config.cells(), data)
    refuse_impossible_cells(cells, data)
    text = f"{estimate(plan_cells(cells, data), None)}\n\n{power(cells, data, config.expected_ap)}"
    print(text)
    return text


def compare(config: CompareConfig) -> list[Row]:
    """Train and evaluate every cell, reuse finished runs, print and log the table."""
    connect()
    name = config.data.data
    data = read_data(name)
    cells = equal_steps(config.cells(), data)
    inputs = {"data": fingerprint(data.samples)}
    refuse_impossible_cells(cells, data)
    key = Identity("main", __name__, config, inputs, ignored=["data", "expected_ap"]).fingerprint
    with open_run("main", config.flat(), key, f"main {config.sources} on {name}") as run:
        log_dataset(name, inputs["data"], data.samples)
        rows = measure_cells(cells, data, config.engine)
        tests, curve = paired_tests(rows), learning_curve(rows)
        compared = [row for row in rows if not row.n_shot]
        table = [markdown_table(compared), describe_setup(compared)] if compared else []
        verdict = conclusion(tests, len(config.seeds.split(",")))
        parts = [*table, *list_remarks(cells), list_tests(tests), verdict, curve.table if curve else ""]
        text = "\n\n".join(part for part in parts if part)
        mlflow.log_text(text, "results.md")
    print(f"\n{describe_location(run)}\n\n{text}")
    return rows
