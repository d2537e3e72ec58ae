"""Choose the classifier to promote."""

import mlflow
from mlflow.entities import Run

from inandout.data.config import Geometry
from inandout.errors import InputError
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.tracking.runs import STAGE, original_run
from inandout.tracking.store import current_experiment


def best_by_validation() -> TrainedClassifier:
    """Return the finished classifier with the highest validation AP.

    Raises:
        InputError: no finished classifier of the experiment has a validation AP, or they differ in dataset, split or
            geometry, so that their validation APs cannot be compared.
    """
    wanted = f"tags.`{STAGE}` = 'classify' and attributes.status = 'FINISHED'"
    runs = mlflow.search_runs([current_experiment()], wanted, output_format="list")
    assert isinstance(runs, list)
    finished = {run.info.run_id: run for run in map(original_run, runs)}
    scored = sorted(
        (run for run in finished.values() if "val_ap" in run.data.metrics),
        key=lambda run: run.data.metrics["val_ap"],
        reverse=True,
    )
    if not scored:
        raise InputError(
            "no finished classify run of this experiment has a validation AP (zero and few shots have no "
            "validation defects); give run=<run id>"
        )
    comparable: dict[tuple[str, ...], list[Run]] = {}
    for run in scored:
        comparable.setdefault(_validated_on(run), []).append(run)
    if len(comparable) > 1:
        best = "; ".join(_describe(runs) for runs in comparable.values())
        raise InputError(
            f"the finished classify runs of this experiment belong to {len(comparable)} combinations of dataset, split "
            f"and geometry, whose validation APs cannot be compared; give the run of one of them: {best}"
        )
    without = f"; {len(finished) - len(scored)} have none" if len(finished) > len(scored) else ""
    print(f"{_describe(scored)}{without}")
    return TrainedClassifier.open(scored[0].info.run_id)


def _validated_on(run: Run) -> tuple[str, ...]:
    """Return what runs with comparable validation APs share: the split dataset after the shot, and the geometry."""
    datasets = [used.dataset.digest for used in run.inputs.dataset_inputs] if run.inputs else []
    return (*datasets, *(run.data.params.get(name, "") for name in Geometry.model_fields))


def _describe(runs: list[Run]) -> str:
    """Describe the first of `runs`, which have descending validation AP."""
    run, params = runs[0], runs[0].data.params
    size = f"{params.get('width')}x{params.get('height')}"
    return (
        f"run {run.info.run_id} ({params.get('data')}, {size}): validation AP {run.data.metrics['val_ap']:.3f}, best "
        f"of {len(runs)}"
    )
