"""Finished runs of `classify`, and errors of other runs."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest

from inandout.classifier.pixels import load_pixels
from inandout.classifier.training import predict
from inandout.data.config import Geometry
from inandout.data.images import write_image
from inandout.data.manifest import fingerprint
from inandout.data.prepare import prepare_shot
from inandout.errors import InputError
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.train import classify
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig
from inandout.tracking.runs import artifact_folder
from tests.conftest import SIDE, draw, pointer_to


@pytest.fixture
def config(tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> ClassifyConfig:
    monkeypatch.setattr("inandout.stages.classify.train._log_export", lambda *_: None)
    return ClassifyConfig.from_flat(
        data=str(tiny), n_aug=4, width=SIDE, height=SIDE, fit="stretch", epochs=1, batch_size=8, shot="few", n_shot=2
    )  # fmt: skip


def test_a_trained_classifier_returns_logged_configuration_weights_and_scores(config: ClassifyConfig) -> None:
    result = classify(config)
    trained = TrainedClassifier.open(result.run_id)
    assert TrainedClassifier.open(pointer_to(result.run_id)).run_id == trained.run_id == result.run_id
    assert trained.config == config
    assert trained.geometry == Geometry(width=SIDE, height=SIDE, fit="stretch")
    assert trained.threshold == result.metrics["threshold"]
    real = prepare_shot(config.data, config.scenario, config.seed)
    assert trained.data_fingerprint == fingerprint(real)
    assert trained.test_fingerprint == fingerprint([sample for sample in real if sample.split == "test"])
    pixels = load_pixels([sample.image for sample in trained.test], trained.geometry)
    for model in (trained.load(), trained.load_fastest()):
        np.testing.assert_allclose(predict(model, pixels), trained.scores().logits, atol=1e-5)
    assert len(trained.test_pixels(4)) == 4
    assert (len(trained.rows("train", 1)), len(trained.take_known(trained.rows("train", 1)))) == (6, 2)


def test_changed_or_missing_files_raise_an_error(config: ClassifyConfig) -> None:
    trained = TrainedClassifier.open(classify(config).run_id)
    write_image(trained.samples[0].image, draw(99, False)[0])
    with pytest.raises(InputError, match="its dataset has changed"):
        trained.rows("train", 0)
    trained.test[0].image.unlink()
    with pytest.raises(InputError, match=r"1 test files of run .* are missing"):
        trained.test_pixels(2)


def test_a_run_that_is_not_a_finished_classifier_raises_an_error(config: ClassifyConfig) -> None:
    run_id = classify(config).run_id
    client = mlflow.MlflowClient()
    pool = augment(AugmentConfig.from_flat(data=config.data.data, n_aug=1, width=SIDE, height=SIDE)).run_id
    with mlflow.start_run() as other:
        pass
    for given, message in (
        ("", "model is empty; give the run id of a classify"),
        ("nothing", "model = nothing: no run has this id"),
        (pool, f"model = {pool}: is a run of augment, not of classify"),
        (other.info.run_id, "is a run of another program, not of classify"),
    ):
        with pytest.raises(InputError, match=message):
            TrainedClassifier.open(given, "model")
    for status in ("RUNNING", "FAILED", "KILLED"):
        client.set_terminated(run_id, status)
        with pytest.raises(InputError, match=f"is {status}, not FINISHED"):
            TrainedClassifier.open(run_id)
    client.set_terminated(run_id, "FINISHED")
    written = artifact_folder(run_id, "config.json")
    text = written.read_text()
    written.write_text(text.replace('"val_fpr"', '"an_option_of_before"'))
    with pytest.raises(InputError, match="was logged by an incompatible version"):
        TrainedClassifier.open(run_id)
    written.write_text(text)
    TrainedClassifier.open(run_id).weights.unlink()
    with pytest.raises(InputError, match=r"artifacts classifier.safetensors are missing in .*; restore them"):
        TrainedClassifier.open(run_id)
    shutil.rmtree(written.parent)
    with pytest.raises(InputError, match=r"classifier.safetensors, config.json, manifest.csv, scores.csv are missing"):
        TrainedClassifier.open(run_id)
