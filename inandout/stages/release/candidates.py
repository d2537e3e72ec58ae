"""Choose the classifier to promote."""

import mlflow

from inandout.errors import InputError
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.tracking.runs import STAGE, original_run
from inandout.tracking.store import current_experiment


def best_by_validation() -> TrainedClassifier:
    """Return the finished classifier with the highest validation AP.

    Raises:
        InputError: no finished classifier of the experiment has a validation AP.
    """
    wanted = f"tags.`{STAGE}` = 'classify' and attributes.status = 'FINISHED'"
    runs = mlflow.search_runs([current_experiment()], wanted, output_format="list")
    assert isinstance(runs, list)
    finished = {run.info.run_id: run for run in map(original_run, runs)}
    scored = [run for run in finished.values() if "val_ap" in run.data.metrics]
    if not scored:
        raise InputError(
            "no finished classify run of this experiment has a validation AP (zero and few shots have no "
            "validation defects); give run=<run id>"
        )
    best = max(scored, key=lambda run: run.data.metrics["val_ap"])
    without = f"; {len(finished) - len(scored)} have none" if len(finished) > len(scored) else ""
    print(f"run {best.info.run_id}: validation AP {best.data.metrics['val_ap']:.3f}, best of {len(scored)}{without}")
    return TrainedClassifier.open(best.info.run_id)
