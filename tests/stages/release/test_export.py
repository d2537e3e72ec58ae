from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pytest

from inandout.classifier.pixels import load_pixels
from inandout.classifier.training import predict
from inandout.errors import InputError
from inandout.evaluation.operating_points import choose_point, parse_rule
from inandout.serving.log_model import measure_pointing
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import Result
from inandout.stages.classify.train import classify
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.release.config import ExportConfig
from inandout.stages.release.export import export
from inandout.stages.release.promote import log_classifier
from tests.conftest import SIDE

pytestmark = pytest.mark.slow


@pytest.fixture
def trained(tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setattr("inandout.stages.classify.train._log_export", lambda *_: None)  # slower than the training
    return classify(ClassifyConfig.from_flat(data=str(tiny), n_aug=0, epochs=1, width=SIDE, height=SIDE))


def test_an_exported_file_agrees_with_the_model_and_is_timed(
    trained: Result, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = export(ExportConfig(run=trained.run_id, rounds=10, rule="validation"))
    known = TrainedClassifier.open(trained.run_id)
    pixels = load_pixels([sample.image for sample in known.test], known.geometry)
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    logit, _, decision = session.run(None, {"images": pixels.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(logit, predict(known.load(), pixels), atol=1e-4)
    np.testing.assert_array_equal(decision, logit >= trained.metrics["threshold"])
    about = session.get_modelmeta().custom_metadata_map
    assert (about["run"], about["rule"], about["fit"]) == (trained.run_id, "validation", "crop")
    assert float(about["threshold"]) == trained.metrics["threshold"]
    run = mlflow.get_run(exported.run_id)
    assert run.data.metrics["export_max_difference"] == float(about["max_difference"]) == exported.difference
    assert 0 < run.data.metrics["onnxruntime_warm_1_p50_ms"] < run.data.metrics["torch_cold_1_p50_ms"]
    assert exported.table.count("\n| ") == 2 + 8, "2 lines of the header, then 2 engines x 2 batches x cold and warm"
    assert exported.table in capsys.readouterr().out
    scored = known.scores("val")
    point = choose_point(parse_rule("validation"), scored, ClassifyConfig().val_fpr)
    with mlflow.start_run():
        version = mlflow.register_model(log_classifier(known, [point], point.rule), "tiny")
    again = export(ExportConfig(model=f"models:/tiny/{version.version}", rounds=10, out="again.onnx"))
    assert again.run_id == exported.run_id, "another URI of the same classifier and threshold"
    assert Path("again.onnx").read_bytes() == exported.path.read_bytes()
    for changes, message in (
        ({}, "out = classifier.onnx: already exists"),
        ({"out": "no/folder.onnx"}, "folder no does not exist"),
        ({"run": "nothing", "out": "a.onnx"}, "run = nothing: no run has this id"),
        ({"run": exported.run_id, "out": "a.onnx"}, "is a run of export, not of classify"),
        ({"rule": "best", "out": "a.onnx"}, "'best' is no operating point"),
        ({"run": "", "model": "models:/nothing@champion", "out": "a.onnx"}, "is not a promoted classifier"),
    ):
        with pytest.raises(InputError, match=message):
            export(ExportConfig(**{"run": trained.run_id, "rounds": 10, **changes}))
    known.test[0].image.unlink()
    with pytest.raises(InputError, match=r"1 test files of run .* are missing"):
        export(ExportConfig(run=trained.run_id, rounds=10, out="a.onnx"))
    assert not Path("a.onnx").exists()


def test_heat_maps_are_not_measured_without_masks(trained: Result) -> None:
    known = TrainedClassifier.open(trained.run_id)
    for sample in known.test:
        if sample.mask:
            sample.mask.unlink()
    assert measure_pointing(known.load(), known.geometry, known.test) == (
        None,
        "not measured: no file of a positive test image with a mask was found",
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give either run"),
        ({"run": "a", "model": "models:/b/1"}, "give either run"),
        ({"model": "b@champion"}, "'b@champion': is not a model URI"),
    ],
)
def test_an_invalid_classifier_raises_an_error(given: dict[str, str], message: str, project: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(ExportConfig(**given))
    assert [path.name for path in project.iterdir()] == ["mlflow.db"], "no run was opened"


def test_the_exported_file_must_end_in_onnx() -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        ExportConfig(run="a", out="a.txt")
