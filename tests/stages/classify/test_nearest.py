from pathlib import Path

import mlflow
import pytest

from inandout.data.images import write_image
from inandout.data.manifest import read_manifest
from inandout.data.prepare import read_data
from inandout.stages.classify.config import NearestConfig
from inandout.stages.classify.nearest import nearest, nearest_fingerprint
from inandout.stages.classify.scores import read_scores
from inandout.tracking.runs import FINGERPRINT
from tests.conftest import SIDE, draw

pytestmark = pytest.mark.slow


def config(data: Path, **changes: object) -> NearestConfig:
    small = {"backbone": "resnet18", "width": SIDE, "height": SIDE, "patches": 200}
    return NearestConfig.from_flat(**{"data": str(data)} | small | changes)


def test_the_baseline_is_measured_as_a_classifier_and_reused(tiny: Path, project: Path) -> None:
    result = nearest(config(tiny))
    assert result.metrics["ap"] > 0.9
    assert {"auroc", "ap_low", "ap_high", "auroc_low", "precision", "oracle_recall"} <= result.metrics.keys()
    run = mlflow.get_run(result.run_id)
    assert "random network" in run.data.tags["inandout.notes"]
    assert run.data.tags[FINGERPRINT] == nearest_fingerprint(config(tiny), read_data(str(tiny)))
    names = {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(result.run_id)}
    assert {"scores.csv", "pr_curve.png", "worst_mistakes.png", "distance_maps.png", "manifest.csv"} <= names
    assert len(read_scores(result.run_id).labels) == 14
    assert nearest(config(tiny)).run_id == result.run_id


def test_no_defect_of_the_training_part_changes_a_score(tiny: Path, project: Path) -> None:
    before = read_scores(nearest(config(tiny)).run_id)
    for sample in read_manifest(tiny):
        if sample.split == "train" and sample.label:
            write_image(sample.image, draw(1000 + int(sample.image.stem), True)[0])
    after = read_scores(nearest(config(tiny, fresh=True)).run_id)
    assert after.logits.tolist() == before.logits.tolist()
