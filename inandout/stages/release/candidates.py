"""Which finished classifiers can be promoted, and the best of them."""

import json
from typing import NamedTuple

import mlflow
from mlflow.entities import Run

from inandout.errors import InputError
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.train import TEST_TAG
from inandout.tracking.runs import artifact_folder, find_run, original_run
from inandout.tracking.store import current_experiment


class Candidate(NamedTuple):
    """A finished run of `classify`."""

    run: Run
    config: ClassifyConfig

    @property
    def id(self) -> str:
        """Of the run."""
        return self.run.info.run_id

    @property
    def test(self) -> str:
        """Fingerprint of its test part."""
        return self.run.data.tags[TEST_TAG]

    @property
    def data(self) -> str:
        """Fingerprint of its data set."""
        assert self.run.inputs is not None, "run_stage logs it"
        return self.run.inputs.dataset_inputs[0].dataset.digest


def find_candidate(run_id: str) -> Candidate:
    """The classifier of a run, or the best of the experiment for an empty id.

    Raises:
        InputError: there is none, or it cannot be promoted; the message says why.
    """
    return _read(_given(run_id) if run_id else _best_by_validation())


def _given(run_id: str) -> Run:
    try:
        return find_run(run_id)
    except mlflow.MlflowException as error:
        raise InputError(f"run = {run_id}: there is no run with this id; copy one of a classify from the UI") from error


def _best_by_validation() -> Run:
    """The finished classifier with the highest AP on its validation part; the test part has no say."""
    wanted = "tags.`inandout.stage` = 'classify' and attributes.status = 'FINISHED'"
    runs = mlflow.search_runs([current_experiment()], wanted, output_format="list")
    assert isinstance(runs, list)
    there = {run.info.run_id: run for run in map(original_run, runs)}
    known = [run for run in there.values() if "val_ap" in run.data.metrics and TEST_TAG in run.data.tags]
    if not known:
        raise InputError(
            "no finished classify of this experiment has a validation AP (zero and few shots have no defects to "
            "validate on); give run=<run id>"
        )
    best = max(known, key=lambda run: run.data.metrics["val_ap"])
    left = f"; {len(there) - len(known)} others have none" if len(there) > len(known) else ""
    print(f"run {best.info.run_id}: validation AP {best.data.metrics['val_ap']:.3f}, best of {len(known)}{left}")
    return best


def _read(run: Run) -> Candidate:
    """What a run that can be promoted says."""
    run_id = run.info.run_id
    values = json.loads(artifact_folder(run_id, "config.json").read_text(encoding="utf-8"))
    try:
        config = ClassifyConfig.from_flat(**values)
    except ValueError as error:
        raise InputError(f"run = {run_id}: is not a run of classify; give the id of one") from error
    if run.info.status != "FINISHED" or TEST_TAG not in run.data.tags:
        raise InputError(f"run = {run_id}: is not finished, or of an older version of the package; run classify again")
    if "ap" not in run.data.metrics:
        raise InputError(f"run = {run_id}: has no test AP ({run.data.tags.get('inandout.notes')}); give another run")
    return Candidate(run, config)
