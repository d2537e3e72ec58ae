import csv
from pathlib import Path

import mlflow
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from inandout.classifier.backbone import build_classifier
from inandout.classifier.config import BackboneConfig
from inandout.classifier.training import predict
from inandout.data.config import Geometry
from inandout.data.images import write_image
from inandout.data.manifest import Sample, digest, read_manifest, write_manifest
from inandout.errors import InputError
from inandout.stages.classify.config import ClassifyConfig, LabelErrorsConfig
from inandout.stages.classify.label_errors import find_label_errors
from inandout.stages.classify.mask_targets import mask_targets
from inandout.stages.classify.part import load_part
from inandout.stages.classify.train import classify
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.tracking.runs import artifact_folder, artifact_names
from tests.conftest import SIDE, draw

pytestmark = pytest.mark.slow

FROZEN = {"backbone": "resnet18", "freeze": "all", "width": SIDE, "height": SIDE, "batch_size": 8}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the export of the model, which takes longer than the training."""
    monkeypatch.setattr("inandout.stages.classify.train._log_export", lambda *_: None)


def test_both_heads_log_where_defects_are(tiny: Path, project: Path) -> None:
    rows = [each.with_(defect="spot/1" if each.label else "") for each in read_manifest(tiny)]
    write_manifest(rows, tiny)
    common = {"data": str(tiny), "n_aug": 4, "epochs": 10, **FROZEN}
    image, mask = (classify(ClassifyConfig.from_flat(head=head, **common)) for head in ("image", "mask"))
    assert image.run_id != mask.run_id
    assert {"pointing", "pointing_chance", "recall_kind_spot_1", "recall_size_small"} <= image.metrics.keys()
    assert not {"pixel_ap", "aupro", "iou", "map_weight"} & image.metrics.keys()
    assert {"pixel_ap", "aupro", "iou", "map_threshold", "map_weight", "recall_kind_spot_1"} <= mask.metrics.keys()
    assert mask.metrics["pointing"] > image.metrics["pointing_chance"] == mask.metrics["pointing_chance"]
    assert mask.metrics["pixel_ap"] > 36 / SIDE**2, "a random map has the share of defect pixels"
    assert mask.metrics["ap"] >= image.metrics["ap"]
    assert mask.metrics["recall_size_small"] == mask.metrics["recall"], "all defects have 36 px"
    assert {"maps.png", "recall.csv", "worst_mistakes.png"} <= artifact_names(mask.run_id)
    with artifact_folder(mask.run_id, "recall.csv").open() as file:
        table = [(row["by"], row["class"], row["images"]) for row in csv.DictReader(file)]
    assert table == [("size", "small", "6"), ("kind", "spot/1", "6")]
    trained = TrainedClassifier.open(mask.run_id)
    logits = predict(trained.load(), trained.test_pixels(len(trained.test)))
    assert logits == pytest.approx(trained.scores().logits, abs=1e-4)
    val = trained.scores("val")
    assert mask.metrics["val_ap"] == pytest.approx(average_precision_score(val.labels, val.logits))
    assert "maps.png" not in artifact_names(image.run_id)


def test_without_masks_nothing_is_measured_and_the_mask_head_refuses(tiny: Path, project: Path) -> None:
    write_manifest([each.with_(mask=None) for each in read_manifest(tiny)], tiny)
    common = {"data": str(tiny), "epochs": 1, "n_aug": 0, **FROZEN}
    with pytest.raises(InputError, match="head = mask: no defect of the training images has a mask"):
        classify(ClassifyConfig.from_flat(head="mask", **common))
    plain = classify(ClassifyConfig.from_flat(**common)).metrics
    assert not [name for name in plain if name.startswith(("pointing", "recall_size", "recall_kind"))]
    synthetic = classify(ClassifyConfig.from_flat(**common | {"head": "mask", "n_aug": 4})).metrics
    assert {"map_weight", "ap"} <= synthetic.keys()
    assert not {"pixel_ap", "pointing"} & synthetic.keys()


def test_targets_are_known_where_masks_are_and_inpainted_defects_where_they_changed(tmp_path: Path) -> None:
    good, mask = draw(0, False)[0], np.zeros((SIDE, SIDE), bool)
    mask[8:16, 8:24] = True
    painted = good.copy()
    painted[8:16, 8:16] = 255
    for name, image in {"good": good, "painted": painted, "mask": mask}.items():
        write_image(tmp_path / f"{name}.png", image)
    host = Sample(image=tmp_path / "good.png", mask=tmp_path / "mask.png", label=0)
    real = Sample(image=tmp_path / "painted.png", mask=tmp_path / "mask.png", label=1)
    source = {"sources": (digest(host.image),)}
    samples = [
        host, real, real.with_(mask=None, origin="ddpm"), real.with_(origin="inpaint", **source),
        real.with_(image=host.image, origin="inpaint", **source),
    ]  # fmt: skip
    geometry = Geometry(width=SIDE, height=SIDE)
    model = build_classifier(BackboneConfig(backbone="resnet18", head="mask"), 0)
    targets = mask_targets(model, load_part(samples, geometry), geometry)
    assert targets is not None
    assert [float(target.sum()) for target in targets[[0, 1, 3, 4]]] == [0, 2, 1, 0]
    assert targets[3, 1, 1] == 1
    assert np.isnan(targets[2]).all()
    without = build_classifier(BackboneConfig(backbone="resnet18"), 0)
    assert mask_targets(without, load_part(samples, geometry), geometry) is None


def test_label_errors_uses_the_mask_head(tiny: Path, project: Path) -> None:
    run_id = find_label_errors(LabelErrorsConfig.from_flat(data=str(tiny), head="mask", epochs=4, folds=2, **FROZEN))
    values = mlflow.get_run(run_id).data.metrics
    assert np.isfinite(values["mean_loss"])
    assert values["out_of_fold_ap"] > 8 / 28
