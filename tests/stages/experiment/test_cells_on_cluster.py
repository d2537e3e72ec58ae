"""A comparison on two machines that loses one of them: the other machine trains its cells."""

import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from inandout.stages.experiment.compare import compare
from inandout.stages.experiment.config import CompareConfig
from tests.conftest import SIDE

pytestmark = [pytest.mark.slow, pytest.mark.torture]


def cells() -> list[Run]:
    found = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [run for run in found if run.data.tags.get("inandout.stage") == "classify"]


def remove_machine(cluster: Any, machine: Any) -> None:
    """Remove a machine from the cluster as soon as both machines train."""
    deadline = time.monotonic() + 200
    while [run.info.status for run in cells()].count("RUNNING") < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    cluster.remove_node(machine, allow_graceful=False)


def test_every_cell_is_in_the_table_once_after_the_loss_of_a_machine(tiny: Path, project: Path, cluster: Any) -> None:
    loss = threading.Thread(target=remove_machine, args=(cluster, cluster.add_node(num_cpus=1)))
    loss.start()
    config = CompareConfig.from_flat(
        data=str(tiny), shots="full", sources="none,memseg", seeds="0,1", n_aug=4, epochs=2, batch_size=8,
        backbone="resnet18", width=SIDE, height=SIDE, cluster=cluster.address,
    )  # fmt: skip
    rows = compare(config)
    loss.join()
    assert [(row.source, row.seed) for row in rows] == [("none", 0), ("none", 1), ("MemSeg", 0), ("MemSeg", 1)]
    assert len(cluster.list_all_nodes()) == 1
    assert len(cells()) > 4, "the cell of the lost machine is started again"
    finished = [run for run in cells() if run.info.status == "FINISHED"]
    assert {run.info.run_id for run in finished} == {row.run_id for row in rows}
    assert len(finished) == 4, "each cell is finished once"
    assert {run.data.tags["mlflow.parentRunId"] for run in finished} == {
        mlflow.search_runs(search_all_experiments=True, filter_string="tags.`inandout.stage` = 'main'").run_id[0]
    }
