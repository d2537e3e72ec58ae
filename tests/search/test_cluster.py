"""A search on two nodes, with a PostgreSQL storage and Ray workers."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from pydantic import ValidationError

from inandout.stages.search.run import search
from tests.search.stub import MODULE, config, install, work

pytestmark = pytest.mark.slow


@pytest.mark.torture
def test_trials_of_a_cluster_belong_to_one_study_and_none_runs_twice(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch, postgres: str, cluster: Any
) -> None:
    cluster.add_node(num_cpus=1)
    install(lambda name, new: monkeypatch.setattr(f"{MODULE}.{name}", new))
    monkeypatch.setattr(f"{MODULE}._work", work)
    search(config(tiny, n_trials=4, cluster=cluster.address, storage=postgres))
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    (study,) = [run for run in runs if run.data.tags["inandout.stage"] == "search"]
    trials = [run for run in runs if run.data.tags["inandout.stage"] == "trial"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {study.info.run_id}
    points = {(run.data.params["alpha"], run.data.params["ddpm_ratio"]) for run in trials}
    assert len(points) == len(trials) == 4
    assert study.data.tags["inandout.process"] not in {run.data.tags["inandout.process"] for run in trials}


def test_a_cluster_needs_a_database(tiny: Path) -> None:
    with pytest.raises(ValidationError, match="a file cannot be locked across machines; give storage"):
        config(tiny, cluster="auto")
