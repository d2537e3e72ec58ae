from pathlib import Path

import numpy as np
import pytest

from inandout.errors import InputError
from inandout.evaluation.combined_scores import Detector, combine
from inandout.stages.classify.config import ClassifyConfig, LabelErrorsConfig, NearestConfig
from inandout.stages.classify.nearest import nearest
from inandout.stages.classify.scores import read_scores
from inandout.stages.classify.train import classify
from inandout.stages.classify.trained_classifier import TrainedClassifier
from tests.conftest import SIDE

pytestmark = pytest.mark.slow
NETWORK = {"backbone": "mobilenet_v2", "width": SIDE, "height": SIDE}


@pytest.fixture(autouse=True)
def _no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inandout.stages.classify.train._log_export", lambda *_: None)


def config(data: Path, **changes: object) -> ClassifyConfig:
    small: dict[str, object] = {"data": str(data), "n_aug": 0, "epochs": 2, "freeze": "all"}
    return ClassifyConfig.from_flat(**small | NETWORK | changes)


def detector(run_id: str) -> Detector:
    return Detector(read_scores(run_id, "val"), read_scores(run_id))


def test_the_score_ranks_as_the_standardised_sum_with_the_baseline(tiny: Path, project: Path) -> None:
    together = detector(classify(config(tiny, distances=True)).run_id)
    alone = detector(classify(config(tiny)).run_id)
    baseline = detector(nearest(NearestConfig.from_flat(data=str(tiny), **NETWORK)).run_id)
    expected = combine([alone, baseline]).logits
    found = together.test.logits
    assert np.corrcoef(found, expected)[0, 1] == pytest.approx(1, abs=1e-6)
    good = together.val.logits[together.val.labels == 0]
    assert good.mean() == pytest.approx(alone.val.logits[alone.val.labels == 0].mean(), abs=1e-5)


def test_a_classifier_is_trained_further_and_gets_new_distances(tiny: Path, project: Path) -> None:
    first = classify(config(tiny, distances=True, shot="zero", n_aug=4)).run_id
    with_distances = TrainedClassifier.open(classify(config(tiny, distances=True, start=first)).run_id)
    without = TrainedClassifier.open(classify(config(tiny, start=first)).run_id)
    assert with_distances.load().distance_head is not None
    assert without.load().distance_head is None
    assert with_distances.run.data.metrics["distance_scale"] > 0


def test_good_validation_images_are_required_before_the_training(tiny: Path, project: Path) -> None:
    with pytest.raises(InputError, match=r"the validation part has 0 good images, and 2 or more .* raise val_share"):
        classify(config(tiny, distances=True, val_share=0.0))


def test_label_errors_has_no_distances(tiny: Path) -> None:
    assert "distances" not in LabelErrorsConfig.from_flat(data=str(tiny), freeze="all").options()
