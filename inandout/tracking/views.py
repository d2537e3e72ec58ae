"""Saved views of an experiment in the MLflow UI: filter, columns, order and charts.

MLflow keeps a view that a user shares as a tag of the experiment, and opens it by the key in the address. The format is
the one of MLflow's UI; tested with MLflow 3.17.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import mlflow

_TAG = "mlflow.sharedViewState."
_NAME = "attributes.`Run Name`"
_AXES = ("alpha", "ddpm_ratio", "n_aug", "seed")
"""Parameters of the parallel coordinates."""


class View(NamedTuple):
    """Runs of one stage as a table with charts."""

    stage: str
    """Value of the tag `inandout.stage` of the runs."""
    params: Sequence[str]
    metrics: Sequence[str]
    """The first one orders the runs, the highest first."""

    def state(self) -> dict[str, Any]:
        """Return the state that MLflow's UI stores for the view."""
        chart = {"metricSectionId": self.stage, "deleted": False, "isGenerated": False, "runsCountToCompare": 100}
        best = self.metrics[0]
        parallel = {"selectedParams": [name for name in self.params if name in _AXES], "selectedMetrics": [best]}
        charts: list[dict[str, Any]] = [
            {"type": "PARALLEL", **parallel, "showAllRuns": True},
            {"type": "BAR", "metricKey": best},
        ]
        first, *others = [f"metrics.`{name}`" for name in self.metrics]
        columns = [first, *(f"params.`{name}`" for name in self.params), *others]
        return {
            "searchFilter": f"tags.`inandout.stage` = '{self.stage}' and attributes.status = 'FINISHED'",
            "orderByKey": first,
            "orderByAsc": False,
            "selectedColumns": columns,
            "columnOrder": [_NAME, *columns],
            "columnWidths": {_NAME: 310, **dict.fromkeys(columns, 85)},
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": [{"uuid": f"{self.stage}-{n}", **chart, **each} for n, each in enumerate(charts)],
            "compareRunSections": [
                {
                    "uuid": self.stage, "name": f"Comparison of {self.stage} runs", "display": True,
                    "isReordered": False, "deleted": False, "isGenerated": False, "columns": 2,
                }
            ],
        }  # fmt: skip


VIEWS: Mapping[str, View] = {
    "classifiers": View(
        "classify",
        ["shot", "n_aug", "ddpm_ratio", "diffusion", "alpha", "seed", "training_seed"],
        ["ap", "ap_low", "ap_high", "precision", "recall"],
    ),
    "trials": View("trial", ["alpha", "ddpm_ratio", "n_aug"], ["val_ap"]),
}
"""Key in the address to view."""


def save_views(experiment_id: str) -> None:
    """Save the views in the experiment; views of the same keys are replaced."""
    client = mlflow.MlflowClient()
    for key, view in VIEWS.items():
        client.set_experiment_tag(experiment_id, f"{_TAG}{key}", json.dumps(view.state()))


def view_page(experiment_id: str, key: str) -> str:
    """Return the page of a view, relative to the address of the UI."""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={key}"
