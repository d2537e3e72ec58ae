"""Saved views of an experiment in the MLflow UI."""

import json
from collections.abc import Iterable
from pathlib import Path

import mlflow
import pytest

from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.search.trial import TrialParams
from inandout.tracking import store
from inandout.tracking.logging import describe_location
from inandout.tracking.runs import STAGE
from inandout.tracking.views import VIEWS


def test_the_link_to_a_comparison_leads_to_a_saved_view(project: Path) -> None:
    store.connect()
    with mlflow.start_run(tags={STAGE: "classify"}) as run:
        pass
    with mlflow.start_run(tags={STAGE: "augment"}):
        pass
    text = describe_location(run)
    experiment = mlflow.get_experiment(run.info.experiment_id)
    key = text.rpartition("viewStateShareKey=")[2]
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
    found = mlflow.search_runs(
        [experiment.experiment_id], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"]
    )
    assert list(found.run_id) == [run.info.run_id]
    assert "params.`alpha`" in view["selectedColumns"]
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} == {view["compareRunSections"][0]["uuid"]}
    assert describe_location(run, "trials").endswith("viewStateShareKey=trials")


@pytest.mark.parametrize(
    ("key", "params"), [("classifiers", ClassifyConfig.options()), ("trials", TrialParams._fields)]
)
def test_the_columns_are_parameters_of_the_runs(key: str, params: Iterable[str]) -> None:
    assert set(VIEWS[key].params) <= set(params)
