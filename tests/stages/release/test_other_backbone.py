"""A network other than ResNet-50, with a mask head and distances to good parts, from training to serving."""

import base64
import io
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from inandout.classifier.heatmap import heat_maps
from inandout.classifier.onnx_file import open_onnx, run_onnx_maps
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.train import classify
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.release.config import ExportConfig, PromoteConfig
from inandout.stages.release.export import export
from inandout.stages.release.promote import promote
from tests.conftest import SIDE

pytestmark = pytest.mark.slow


def test_a_mobilenet_is_exported_promoted_and_served(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inandout.stages.classify.train._log_export", lambda *_: None)
    start = {"backbone": "mobilenet_v2", "freeze": "all", "head": "mask", "distances": True}
    size = {"width": SIDE, "height": SIDE}
    run_id = classify(ClassifyConfig.from_flat(data=str(tiny), n_aug=0, epochs=1, **start, **size)).run_id
    trained = TrainedClassifier.open(run_id)
    exported = export(ExportConfig(run=run_id, rounds=10))
    assert exported.difference < 1e-4
    pixels = trained.test_pixels(3)
    maps = run_onnx_maps(open_onnx(exported.path), pixels)
    assert maps == pytest.approx(heat_maps(trained.load(), pixels), abs=1e-4)

    version = promote(PromoteConfig(run=run_id, points="validation")).version
    model = mlflow.pyfunc.load_model(f"models:/inandout/{version}")
    image = trained.test[-1].image
    table = pd.DataFrame({"image": [base64.b64encode(image.read_bytes()).decode()]})
    answer = model.predict(table, params={"heatmap": True}).iloc[0]
    scores = dict(zip([sample.image for sample in trained.test], trained.scores().logits, strict=True))
    assert answer["logit"] == pytest.approx(scores[image], abs=1e-4)
    served = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["heatmap"]))))
    expected = heat_maps(trained.load(), trained.test_pixels(len(trained.test)))[-1]
    assert np.abs(served / 255 - expected).max() < 0.01

    card = mlflow.artifacts.load_text(f"models:/inandout/{version}/model_card.md")
    assert "Network mobilenet_v2 with one defect logit and a map of the defect; the logit combines the image" in card
    assert "Maps: the maximum is on the defect in" in card
    assert "AUPRO up to 30 % false positives" in card
    assert "is added to the logit; d: distance of the worst patch to good parts" in card
    assert "frozen all" in card
