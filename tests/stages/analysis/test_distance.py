from pathlib import Path

import mlflow
import numpy as np
import pytest

from inandout.classifier.backbone import load_classifier
from inandout.data.images import write_image
from inandout.data.manifest import Sample, digest, read_manifest, write_manifest
from inandout.errors import InputError
from inandout.stages.analysis.config import DistanceConfig
from inandout.stages.analysis.distance import distance, feature_map
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import Result
from inandout.stages.classify.train import classify
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig
from inandout.tracking.runs import WEIGHTS, artifact_folder
from tests.conftest import SIDE, draw, pointer_to

pytestmark = pytest.mark.slow

SIZE = {"width": SIDE, "height": SIDE}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """CSV manifest with enough positives to compare, but too few in the validation part."""
    folder = tmp_path / "data"
    folder.mkdir()
    samples = []
    parts = [("train", 0)] * 24 + [("train", 1)] * 14 + [("val", 1)] * 3 + [("test", 0)] * 4 + [("test", 1)] * 12
    for number, (split, label) in enumerate(parts):
        path = folder / f"{number}.png"
        write_image(path, draw(number, bool(label))[0])
        samples.append(Sample(image=path, label=label, split=split, group=f"part {number}"))
    write_manifest(samples, folder / "data.csv")
    return folder / "data.csv"


@pytest.fixture
def trained(data: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setattr("inandout.stages.classify.train._log_export", lambda *_: None)  # takes longer than the training
    return classify(
        ClassifyConfig.from_flat(data=str(data), n_aug=0, epochs=3, batch_size=8, shot="few", n_shot=8, **SIZE)
    )


def copies(data: Path, folder: Path) -> Path:
    """Write a pool of new images with the real defect; return its folder."""
    sources = tuple(digest(s.image) for s in read_manifest(data) if s.split == "train" and s.label == 1)
    folder.mkdir()
    samples = []
    for number in range(11):
        path = folder / f"{number}.png"
        write_image(path, draw(1000 + number, True)[0])
        samples.append(Sample(image=path, label=1, split="train", origin="ddpm", sources=sources, seed=number))
    write_manifest(samples, folder / "manifest.csv")
    return folder


def test_similar_images_have_small_distances_and_the_run_logs_them(
    data: Path, trained: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memseg = augment(AugmentConfig.from_flat(data=str(data), n_aug=13, **SIZE)).run_id
    near = copies(data, tmp_path / "near")
    config = DistanceConfig(model=trained.run_id, pools=f"{near}, {memseg}")
    found = distance(config)
    run = mlflow.get_run(found.run_id)
    values = run.data.metrics
    assert values["kid_pool_1"] < values["kid_train_negatives"]
    assert values["frechet_pool_1"] < values["frechet_train_negatives"]
    assert {"kid_pool_2", "frechet_pool_2", "kid_train_positives"} <= set(values)
    assert (run.data.params["n_compared"], run.data.params["n_reference"]) == ("11", "12")
    assert run.data.params["data"] == str(data)
    assert f"| augment memseg n=013 seed=00 ({memseg[:8]}) " in found.table
    assert f"{values['kid_pool_1']:.3g} (" in found.table
    assert "Omitted, fewer than 10 images: real validation positives (3)." in found.table
    assert found.table in capsys.readouterr().out
    artifacts = {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(found.run_id)}
    assert {"distance.md", "features.png", "config.json", "manifest.csv"} <= artifacts
    assert distance(config) == found
    pointing = DistanceConfig(model=pointer_to(trained.run_id), pools=f"{near}, {pointer_to(memseg)}")
    assert distance(pointing) == found
    weights = load_classifier(artifact_folder(trained.run_id, WEIGHTS))
    assert int(weights.network.bn1.num_batches_tracked) == 3 * 2, "3 epochs of 16 images, not untrained weights"


def test_invalid_pools_and_models_raise_an_error(data: Path, trained: Result, tmp_path: Path) -> None:
    small = augment(AugmentConfig.from_flat(data=str(data), n_aug=4, **SIZE)).run_id
    pool, leak = copies(data, tmp_path / "pool"), copies(data, tmp_path / "leak")
    test = tuple(digest(sample.image) for sample in read_manifest(data) if sample.split == "test")
    write_manifest([s.with_(sources=test) for s in read_manifest(leak / "manifest.csv")], leak / "manifest.csv")
    for changes, message in (
        ({"model": ""}, "model is empty"),
        ({"model": "no-such-run"}, "model = no-such-run: no run has this id"),
        ({"model": small}, "is a run of augment, not of classify"),
        ({"pools": " , "}, "pools is empty"),
        ({"pools": small}, "has 4 images; a comparison needs at least 10"),
        ({"pools": str(tmp_path)}, "is not a pool"),
        ({"pools": f"{pool},{leak}"}, "outside the training part"),
    ):
        with pytest.raises(InputError, match=message):
            distance(DistanceConfig(**{"model": trained.run_id, "pools": str(pool)} | changes))
    write_manifest(read_manifest(data)[1:], data)
    with pytest.raises(InputError, match="its dataset has changed"):
        distance(DistanceConfig(model=trained.run_id, pools=str(pool)))
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert {run.info.status for run in runs} == {"FINISHED"}, "errors are raised before a run is opened"


def test_synthetic_images_do_not_change_the_projection() -> None:
    rng = np.random.default_rng(0)
    real, negatives, pool = (
        rng.normal(mean, spread, (20, 8)).astype(np.float32) for mean, spread in ((1, 1), (0, 1), (50, 9))
    )
    figure = feature_map(real, [("a pool", pool), ("training negatives", negatives)])
    without = feature_map(real, [("training negatives", negatives)])
    points = {line.get_label(): line.get_offsets() for line in figure.axes[0].collections}
    expected = {line.get_label(): line.get_offsets() for line in without.axes[0].collections}
    assert set(points) == {"a pool", "training negatives", "real test positives"}
    assert all(np.allclose(points[name], expected[name]) for name in expected)
