import csv
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pytest

from inandout.classifier.pixels import load_pixels
from inandout.data.images import write_image
from inandout.data.manifest import Sample, digest, read_manifest, write_manifest
from inandout.errors import InputError
from inandout.stages.analysis.config import FilterConfig
from inandout.stages.analysis.filter import filter_pool
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import Result
from inandout.stages.classify.train import classify
from inandout.tracking.runs import artifact_folder
from tests.conftest import SIDE, draw, pointer_to

pytestmark = pytest.mark.slow

SIZE = {"width": SIDE, "height": SIDE}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    samples = []
    parts = [("train", 0)] * 24 + [("train", 1)] * 12 + [("val", 0)] * 20 + [("val", 1)] * 4
    for number, (split, label) in enumerate([*parts, *[("test", 0)] * 3, *[("test", 1)] * 3]):
        write_image(folder / f"{number}.png", draw(number, bool(label))[0])
        samples.append(Sample(image=folder / f"{number}.png", label=label, split=split, group=f"part {number}"))
    write_manifest(samples, folder / "data.csv")
    return folder / "data.csv"


@pytest.fixture(autouse=True)
def ideal_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace features of a network by the share of bright pixels and the mean brightness."""
    monkeypatch.setattr("inandout.stages.classify.train._log_export", lambda *_: None)

    def look(net: object, pixels: np.ndarray) -> np.ndarray:
        bright = (pixels > 200).mean(axis=(1, 2))
        return np.concatenate([100 * bright, pixels.mean(axis=(1, 2)) / 20], axis=1)

    monkeypatch.setattr("inandout.stages.analysis.filter.features", look)


def train(data: Path, **changes: object) -> Result:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("inandout.stages.classify.train.fit", lambda *_, **__: [])
        return classify(ClassifyConfig.from_flat(**{"data": str(data), "n_aug": 0, "epochs": 1, **SIZE} | changes))


def write_pool(data: Path, folder: Path, **changes: object) -> Path:
    """Write a pool of 4 defects, 3 good parts that the filter rejects, and 2 images unlike both; return its folder."""
    source = next(s for s in read_manifest(data) if s.split == "train" and s.label == 1)
    shared = {"origin": "ddpm", "sources": (digest(source.image),), "label": 1, "prompt": "pits"} | changes
    folder.mkdir()
    images = [draw(710 + number, number < 4)[0] for number in range(7)]
    images += [np.full((SIDE, SIDE, 3), 240 + number, np.uint8) for number in range(2)]
    for number, image in enumerate(images):
        write_image(folder / f"{number}.png", image)
    rows = [Sample(image=folder / f"{number}.png", seed=number, **shared) for number in range(len(images))]
    write_manifest(rows, folder / "manifest.csv")
    return folder


def test_a_good_part_is_rejected_and_a_defect_is_kept(
    data: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, run_id = write_pool(data, tmp_path / "pool"), train(data).run_id
    config = FilterConfig(pool=str(pool), run=run_id)
    found = filter_pool(config)
    assert [row.seed for row in found.samples] == [0, 1, 2, 3]
    assert [digest(row.image) for row in found.samples] == [digest(pool / f"{number}.png") for number in range(4)]
    with artifact_folder(found.run_id, "filter.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["result"] for row in table] == ["kept"] * 4 + ["good"] * 3 + ["unlike"] * 2
    assert float(table[4]["to_negatives"]) < float(table[0]["to_negatives"])
    assert float(table[0]["to_positives"]) < float(table[4]["to_positives"])
    assert all(float(row["novelty"]) >= float(row["to_positives"]) for row in table), "sources are positives"
    values = mlflow.get_run(found.run_id).data.metrics
    assert (values["images_kept"], values["images_good"], values["images_unlike"]) == (4, 3, 2)
    assert values["val_defects_kept"] == 1
    assert values["val_good_kept"] <= 0.05
    assert "The thresholds keep 4 of 4 real defects of the validation part." in capsys.readouterr().out
    artifacts = {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(found.run_id)}
    assert {"pool", "pool.png", "gallery", "filter.csv", "filter.md", "filter.png"} <= artifacts
    assert filter_pool(config).run_id == found.run_id
    assert filter_pool(FilterConfig(pool=str(pool), run=pointer_to(run_id))).run_id == found.run_id
    trained = train(data, ddpm_pool=pointer_to(found.run_id), ddpm_ratio=1.0, n_aug=4)
    assert mlflow.get_run(trained.run_id).data.params["n_train_ddpm_positives"] == "4"


def test_zero_shot_uses_good_parts_only_and_never_the_test_part(
    data: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = next(s for s in read_manifest(data) if s.split == "train" and s.label == 0)
    pool = write_pool(data, tmp_path / "pool", sources=(digest(good.image),))
    run_id = train(data, shot="zero", n_aug=4).run_id
    loaded = []
    monkeypatch.setattr(
        "inandout.stages.analysis.filter.load_pixels",
        lambda paths, size: loaded.extend(paths) or load_pixels(paths, size),
    )
    found = filter_pool(FilterConfig(pool=str(pool), run=run_id))
    assert [row.seed for row in found.samples] == [0, 1, 2, 3, 7, 8], "real defects are not available"
    metrics = mlflow.get_run(found.run_id).data.metrics
    assert not {"threshold_positives", "val_defects_kept"} & set(metrics)
    parts = {sample.image: sample for sample in read_manifest(data)}
    assert {parts[path].split for path in loaded if path in parts} == {"train", "val"}


@pytest.mark.parametrize(("origin", "kept"), [("ddpm", False), ("inpaint", True)])
def test_an_inpainted_defect_is_not_compared_with_its_source_part(
    origin: str, kept: bool, data: Path, project: Path, tmp_path: Path
) -> None:
    canvas = data.with_name("0.png")
    almost = draw(710, True)[0]  # first image of the pool
    almost[0, 0] += 1
    write_image(canvas, almost)
    pool = write_pool(data, tmp_path / "pool", origin=origin, sources=(digest(canvas),))
    found = filter_pool(FilterConfig(pool=str(pool), run=train(data, shot="zero", n_aug=4).run_id))
    assert (0 in [row.seed for row in found.samples]) is kept


def test_images_without_known_sources_have_no_novelty(data: Path, project: Path, tmp_path: Path) -> None:
    pool, run_id = write_pool(data, tmp_path / "pool"), train(data).run_id
    (pool / "manifest.csv").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = filter_pool(FilterConfig(pool=str(pool), run=run_id))
    metrics = mlflow.get_run(found.run_id).data.metrics
    assert metrics["images_kept"] == 4
    assert "median_novelty" not in metrics


def test_invalid_pools_raise_an_error(data: Path, project: Path, tmp_path: Path) -> None:
    pool, run_id = write_pool(data, tmp_path / "pool"), train(data).run_id
    goods = write_pool(data, tmp_path / "goods")
    write_manifest(read_manifest(goods / "manifest.csv")[4:], goods / "manifest.csv")
    test = next(s for s in read_manifest(data) if s.split == "test")
    leak = write_pool(data, tmp_path / "leak", sources=(digest(test.image),))
    trained_on_pool = train(data, ddpm_pool=str(pool), ddpm_ratio=1.0, n_aug=4).run_id
    for changes, message in (
        ({"pool": ""}, "pool is empty"),
        ({"run": ""}, "run is empty"),
        ({"pool": str(tmp_path)}, "not a pool"),
        ({"pool": str(leak)}, "outside the training part"),
        ({"run": trained_on_pool}, "trained on 4 of the 9 images of pool"),
        ({"pool": str(goods)}, "none of its 5 images is kept, 3 resemble good parts and 2 differ"),
    ):
        with pytest.raises(InputError, match=message):
            filter_pool(FilterConfig(**{"pool": str(pool), "run": run_id} | changes))
    few = train(_without_validation(data), val_share=0).run_id
    with pytest.raises(InputError, match="needs at least 19 good validation parts, but there are 0"):
        filter_pool(FilterConfig(pool=str(pool), run=few))


def _without_validation(data: Path) -> Path:
    rows = [sample for sample in read_manifest(data) if sample.split != "val"]
    write_manifest(rows, data.with_name("without.csv"))
    return data.with_name("without.csv")
