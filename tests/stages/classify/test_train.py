import csv
import json
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.torch import save_file

from inandout.classifier.backbone import build_classifier, save_classifier
from inandout.classifier.config import BackboneConfig
from inandout.classifier.pixels import load_pixels
from inandout.classifier.training import predict
from inandout.data.config import Geometry
from inandout.data.manifest import digest, read_manifest
from inandout.errors import InputError
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import Result
from inandout.stages.classify.train import classify, describe_metrics
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.experiment.compare import compare
from inandout.stages.experiment.config import CompareConfig
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig
from inandout.tracking.runs import artifact_folder
from tests.conftest import SIDE, start

pytestmark = pytest.mark.slow

SMALL = {"n_aug": 4, "width": SIDE, "height": SIDE, "epochs": 2, "batch_size": 8, "backbone": "resnet18"}


def train(tiny: Path, **changes: object) -> Result:
    return classify(ClassifyConfig.from_flat(**{"data": str(tiny)} | SMALL | changes))


def test_the_sentence_about_a_run_leaves_out_what_is_undefined() -> None:
    ap = {"ap": 0.5, "ap_low": 0.4, "ap_high": 0.6}
    assert describe_metrics(ap) == "test part: AP 0.500 (95 % 0.400 .. 0.600)"
    assert "precision 0.700, recall 0.200 at the threshold" in describe_metrics(ap | {"precision": 0.7, "recall": 0.2})
    assert describe_metrics({}).startswith("AP is undefined")


def scores(run_id: str) -> list[dict[str, str]]:
    with artifact_folder(run_id, "scores.csv").open() as file:
        return list(csv.DictReader(file))


def children(run_id: str, stage: str) -> int:
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return sum(
        run.data.tags.get("mlflow.parentRunId") == run_id and run.data.tags.get("inandout.stage") == stage
        for run in runs
    )


def test_a_run_logs_everything_and_is_reused(tiny: Path, project: Path) -> None:
    result = train(tiny)
    run = mlflow.get_run(result.run_id)
    expected = {"alpha": "None", "n_aug": "4", "ddpm_ratio": "0.0", "shot": "full", "seed": "0", "epochs": "2"}
    assert expected.items() <= run.data.params.items()
    assert run.data.params["n_train_memseg_positives"] == "4"
    assert result.metrics.items() <= run.data.metrics.items()
    assert {"ap", "precision", "recall", "oracle_precision", "ap_low", "loss", "val_ap"} <= set(run.data.metrics)
    client = mlflow.MlflowClient()
    assert [metric.step for metric in client.get_metric_history(result.run_id, "loss")] == [1, 2]
    assert {"config.json", "manifest.csv", "training_mix.png", "worst_mistakes.png", "pr_curve.png", "scores.csv"} <= {
        artifact.path for artifact in client.list_artifacts(result.run_id)
    }
    assert "smallest" in run.data.tags["inandout.survival"]
    assert run.inputs.dataset_inputs[0].dataset.name == "tiny.csv"
    assert list(Path(".inandout/work").iterdir()) == [], "the checkpoint of a finished run is deleted"
    assert train(tiny).run_id == result.run_id
    assert children(result.run_id, "augment") == 1


def test_the_logged_model_reproduces_the_scores_for_any_batch_without_pickle(tiny: Path, project: Path) -> None:
    result = train(tiny, n_aug=0)
    (model,) = mlflow.search_logged_models(output_format="list")
    rows = [row for row in scores(result.run_id) if row["split"] == "test"]
    by_name = {sample.image.name: sample.image for sample in read_manifest(tiny)}
    paths = [by_name[Path(row["image"]).name] for row in rows]
    pixels = load_pixels(paths, Geometry(width=SIDE, height=SIDE)).transpose(0, 3, 1, 2)
    loaded = mlflow.pyfunc.load_model(model.model_uri)
    for batch in (1, 3, len(rows)):
        logits = loaded.predict(np.ascontiguousarray(pixels[:batch]))
        assert np.ravel(logits) == pytest.approx([float(row["logit"]) for row in rows[:batch]], abs=1e-4)
    files = [path.suffix for path in Path(model.artifact_location.removeprefix("file://")).rglob("*") if path.is_file()]
    assert ".pt2" in files
    assert not {".pkl", ".pth", ".bin", ".pt"} & set(files)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the export of the model, which takes longer than the training; other tests check it."""
    monkeypatch.setattr("inandout.stages.classify.train._log_model", lambda model, pixels: None)


@pytest.mark.usefixtures("no_model")
def test_each_shot_trains_on_its_number_of_real_positives(tiny: Path, project: Path) -> None:
    for shot, expected in (("zero", None), ("few", "3")):
        run = mlflow.get_run(train(tiny, shot=shot, n_shot=3, epochs=1).run_id)
        assert run.data.params.get("n_train_real_positives") == expected
        assert "validation negatives score above it" in run.data.tags["inandout.notes"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shot": "zero", "n_aug": 0}, "no positives"),
        ({"shot": "few", "n_shot": 99}, "n_shot is 99"),
        ({"memseg_pool": "no-such-run"}, "no-such-run"),
        ({"weights": "somewhere.pth"}, "must be 'none', 'imagenet' or the path"),
    ],
)
def test_invalid_options_raise_an_error_before_training(
    tiny: Path, project: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(tiny, **changes)
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert all(run.info.status != "RUNNING" for run in runs)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"ddpm_pool": "x", "ddpm_ratio": 0},
            "ddpm_pool is set, but ddpm_ratio = 0 and n_aug = 60 use no image of it",
        ),
        ({"memseg_pool": "x", "ddpm_ratio": 1}, "memseg_pool is set, but ddpm_ratio = 1"),
        ({"memseg_pool": "x", "n_aug": 0}, "n_aug = 0 use no image of it"),
    ],
)
def test_a_pool_that_the_mix_does_not_use_raises_an_error(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClassifyConfig.from_flat(**given)


def test_another_backbone_is_trained_and_opened(tiny: Path, project: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_classifier(build_classifier(BackboneConfig(backbone="mobilenet_v2"), 1), path)
    result = train(tiny, backbone="mobilenet_v2", weights=str(path), freeze="norm", n_aug=0)
    assert mlflow.get_run(result.run_id).data.tags["inandout.weights"] == digest(path)
    trained = TrainedClassifier.open(result.run_id)
    model = trained.load()
    assert model.backbone == "mobilenet_v2"
    logits = predict(model, trained.test_pixels(len(trained.test)))
    assert logits == pytest.approx(trained.scores().logits, abs=1e-4)
    assert train(tiny, backbone="mobilenet_v2", weights=str(path), n_aug=0).run_id != result.run_id
    (logged,) = mlflow.search_logged_models(filter_string=f"source_run_id = '{result.run_id}'", output_format="list")
    assert logged.model_uri


@pytest.mark.usefixtures("no_model")
def test_the_content_of_a_weight_file_is_part_of_the_fingerprint(tiny: Path, project: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(build_classifier(BackboneConfig(backbone="resnet18"), 1).network.state_dict(), path)
    first = train(tiny, weights=str(path), epochs=1)
    assert train(tiny, weights=str(path), epochs=1).run_id == first.run_id
    save_file(build_classifier(BackboneConfig(backbone="resnet18"), 2).network.state_dict(), path)
    assert train(tiny, weights=str(path), epochs=1).run_id != first.run_id


def test_a_comparison_checks_all_cells_before_training(tiny: Path, project: Path) -> None:
    config = CompareConfig.from_flat(**{"data": str(tiny)} | SMALL | {"shots": "zero,few", "n_shot": 99})
    with pytest.raises(InputError, match="n_shot is 99"):
        compare(config)
    assert mlflow.search_runs(search_all_experiments=True, output_format="list") == []


def test_a_pool_of_the_training_part_of_another_seed_raises_an_error(tiny: Path, project: Path) -> None:
    size = {"width": SIDE, "height": SIDE}
    pool = augment(AugmentConfig.from_flat(data=str(tiny), n_aug=16, seed=5, **size))
    with pytest.raises(InputError, match="outside the training part"):
        train(tiny, memseg_pool=pool.run_id, n_aug=16)


@pytest.mark.usefixtures("no_model")
def test_a_comparison_prints_a_table_and_reuses_finished_cells(
    tiny: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"epochs": 1, "seeds": "0,1", "shots": "zero,full"}
    config = CompareConfig.from_flat(**{"data": str(tiny)} | SMALL | options)
    rows = compare(config)
    assert [(row.shot, row.source, row.seed) for row in rows] == [
        ("zero", "MemSeg", 0), ("zero", "MemSeg", 1),
        ("full", "none", 0), ("full", "none", 1), ("full", "MemSeg", 0), ("full", "MemSeg", 1),
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "| full | MemSeg | 4     | 2 " in printed
    assert "mlflow ui" in printed
    assert [row.run_id for row in compare(config)] == [row.run_id for row in rows]


def test_a_killed_run_resumes_to_the_scores_of_an_uninterrupted_run(tiny: Path, project: Path) -> None:
    arguments = ["classify", "--data", str(tiny), "--n-aug=4", f"--width={SIDE}", f"--height={SIDE}"]
    arguments += ["--epochs=6", "--batch-size=8", "--backbone=resnet18"]
    process = start(*arguments)
    deadline = time.monotonic() + 120
    while not list(Path(".inandout/work").glob("*/checkpoint.safetensors")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert list(Path(".inandout/work").glob("*/checkpoint.safetensors"))
    resumed = train(tiny, epochs=6)
    status = {run.info.status for run in mlflow.search_runs(search_all_experiments=True, output_format="list")}
    assert status == {"FINISHED", "KILLED"}
    assert mlflow.get_run(resumed.run_id).data.tags["inandout.resumed"] == "True"
    assert [point.step for point in mlflow.MlflowClient().get_metric_history(resumed.run_id, "val_ap")] == [
        1, 2, 3, 4, 5, 6
    ], "the curve is complete"  # fmt: skip
    assert scores(resumed.run_id) == scores(train(tiny, epochs=6, fresh=True).run_id)


@pytest.mark.torture
def test_four_processes_on_a_fresh_store_all_succeed(tiny: Path, project: Path) -> None:
    (project / "mlflow.db").unlink()
    arguments = ["augment", "--data", str(tiny), "--n-aug=2", f"--width={SIDE}", f"--height={SIDE}"]
    processes = [start(*arguments, f"--seed={seed // 2}") for seed in range(4)]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(errors)
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert sorted(run.data.params["seed"] for run in runs) == ["0", "1"], "equal pools are generated once"
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.usefixtures("no_model")
def test_the_configuration_artifact_is_complete(tiny: Path, project: Path) -> None:
    result = train(tiny, epochs=1, n_aug=0)
    logged = json.loads(artifact_folder(result.run_id, "config.json").read_text())
    config = ClassifyConfig.from_flat(**{"data": str(tiny)} | SMALL | {"epochs": 1, "n_aug": 0})
    assert logged == config.flat()
