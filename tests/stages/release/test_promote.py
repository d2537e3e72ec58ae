"""Real classifiers, trained for an epoch on tiny images, with artificial scores, so that the better one is known."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import pytest

from inandout.classifier import onnx_file
from inandout.data.images import write_image
from inandout.data.manifest import Sample, write_manifest
from inandout.errors import InputError
from inandout.evaluation.operating_points import OperatingPoint
from inandout.serving.registry import CHAMPION, GATE, PREVIOUS, ROLLED_BACK, version_at
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.train import classify
from inandout.stages.release.config import PromoteConfig, RollbackConfig
from inandout.stages.release.promote import Promotion, promote
from inandout.stages.release.rollback import rollback
from tests.conftest import SIDE, draw, pointer_to, start

pytestmark = pytest.mark.slow

PARTS = {("train", 0): 10, ("train", 1): 4, ("val", 0): 60, ("val", 1): 12, ("test", 0): 40, ("test", 1): 30}


def write_data(folder: Path, first: int) -> Path:
    """Write a CSV manifest of `PARTS`; the images depend on `first`."""
    folder.mkdir()
    samples = []
    rows = [part for part, count in PARTS.items() for _ in range(count)]
    for number, (split, label) in enumerate(rows, start=first):
        path = folder / f"{number}.png"
        write_image(path, draw(number, bool(label))[0])
        defect = "bright" if label else ""
        samples.append(Sample(image=path, label=label, defect=defect, split=split, group=f"part {number}"))
    write_manifest(samples, folder / "data.csv")
    return folder / "data.csv"


def scorer(skill: float) -> Callable[[object, np.ndarray], np.ndarray]:
    """Return a replacement of `predict`: noise, plus `skill` for images with a bright defect."""

    def predict(model: object, pixels: np.ndarray, **_: object) -> np.ndarray:
        is_defect = pixels.reshape(len(pixels), -1).max(axis=1) > 200
        return np.random.default_rng(len(pixels)).normal(size=len(pixels)) + skill * is_defect

    return predict


class Runs(NamedTuple):
    """Run ids of `classify` in one store."""

    blind: str
    middling: str
    good: str
    elsewhere: str
    """Good, on other images."""
    zero: str
    """Good, zero shot."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("trained")
    here, there = write_data(folder / "here", 0), write_data(folder / "there", 1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setattr("inandout.stages.classify.train._log_export", lambda *_: None)

        def train(skill: float, data: Path = here, **changes: object) -> str:
            score = scorer(skill)
            patch.setattr("inandout.stages.classify.train.predict", score)
            patch.setattr(
                "inandout.stages.classify.train.predictor", lambda model, pixels, _: lambda: score(model, pixels)
            )
            values = {"n_aug": 0, "epochs": 1, "batch_size": 8, "width": SIDE, "height": SIDE, "data": str(data)}
            values |= {"backbone": "resnet18"}
            return classify(ClassifyConfig.from_flat(**values | changes)).run_id

        yield Runs(
            blind=train(0.0, seed=1), middling=train(1.0), good=train(4.0, seed=2), elsewhere=train(4.0, there),
            zero=train(4.0, shot="zero", n_aug=4, seed=3),
        )  # fmt: skip


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the check of the export, which is slow; one test runs it."""
    monkeypatch.setattr("inandout.stages.release.promote._check_export", lambda *_: 1e-6)


def release(run: str, name: str, **changes: object) -> Promotion:
    return promote(PromoteConfig(**{"run": run, "name": name} | changes))


def holders(name: str) -> tuple[int | None, int | None]:
    found = [version_at(name, alias) for alias in (CHAMPION, PREVIOUS)]
    return tuple(None if version is None else int(version.version) for version in found)  # type: ignore[return-value]


def versions(name: str) -> dict[int, dict[str, str]]:
    return {int(v.version): v.tags for v in mlflow.MlflowClient().search_model_versions(f"name = '{name}'")}


@pytest.mark.usefixtures("unchecked")
def test_the_champion_changes_only_to_a_better_model_and_can_be_rolled_back(
    trained: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release(trained.middling, "story") == Promotion(1, True, "passed: the first version of this name")
    assert holders("story") == (1, None)
    assert "registered model" not in capsys.readouterr().err, "MLflow's own lines are not shown"
    with pytest.raises(InputError, match="champion version 1 has no previous version"):
        rollback(RollbackConfig(name="story"))

    worse = release(trained.blind, "story")
    assert (worse.version, worse.champion) == (2, False)
    assert holders("story") == (1, None)
    assert "not passed: test AP -0." in versions("story")[2][GATE]
    assert "over champion version 1: worse" in versions("story")[2][GATE]

    better = release(trained.good, "story")
    assert (better.version, better.champion) == (3, True)
    assert holders("story") == (3, 1)
    assert "over champion version 1: better" in versions("story")[3][GATE]
    assert release(trained.good, "story") == Promotion(3, True, "it is already the champion")

    rollback(RollbackConfig(name="story"))
    assert holders("story") == (1, 3)
    assert "replaced by version 1" in versions("story")[3][ROLLED_BACK]
    again = release(trained.good, "story")
    assert (again.version, again.champion) == (3, False), "the gate never promotes a version after a rollback"
    assert "rolled back" in again.why
    assert holders("story") == (1, 3)
    rollback(RollbackConfig(name="story"))
    assert holders("story") == (3, 1)
    assert ROLLED_BACK not in versions("story")[3]
    assert sorted(versions("story")) == [1, 2, 3]
    assert "story: version 3 is the champion, version 1 the previous champion" in capsys.readouterr().out


def test_a_version_has_tags_a_card_and_a_working_model(trained: Runs) -> None:
    result = release(trained.good, "whole", data_licence="CC0")
    version = version_at("whole", CHAMPION)
    assert version is not None
    run = mlflow.get_run(trained.good)
    ap, low, high = (run.data.metrics[name] for name in ("ap", "ap_low", "ap_high"))
    expected = {
        "run": trained.good, "alpha": "none used", "n_aug": "0", "ddpm_ratio": "0", "shot": "full", "seeds": "2",
        "data_licence": "CC0", "base_licence": "none used", GATE: result.why,
        "data_fingerprint": run.inputs.dataset_inputs[0].dataset.digest,
        "test_fingerprint": run.data.tags["inandout.test"],
        "ap": f"{ap:.3f} (95 % {low:.3f} .. {high:.3f})",
    }  # fmt: skip
    assert version.tags.items() >= expected.items()
    assert version.run_id
    assert mlflow.get_run(version.run_id).data.metrics["export_difference"] < 1e-4

    folder = Path(mlflow.artifacts.download_artifacts("models:/whole@champion"))
    card = (folder / "model_card.md").read_text()
    assert card == Path(mlflow.artifacts.download_artifacts(f"runs:/{version.run_id}/model_card.md")).read_text()
    assert "Licence of the data: CC0." in card
    assert f"python -m inandout promote --run {trained.good} --data-licence CC0" in card
    assert " of 30 missed: fewer than " in card
    points = json.loads(
        Path(mlflow.artifacts.download_artifacts(f"runs:/{version.run_id}/operating_points.json")).read_text()
    )["points"]
    found = [OperatingPoint(**point) for point in points]
    assert [(point.rule, point.measured_on) for point in found] == [("validation", "test"), ("fpr<=0.05", "test")]
    assert [point.escapes_by_kind for point in found] == [{"bright": point.escapes} for point in found]
    assert "| bright " in card

    images = [draw(number, True)[0].tolist() for number in range(2)]
    answer = mlflow.pyfunc.load_model("models:/whole@champion").predict(
        [{"image": image} for image in images], params={"rule": "fpr<=0.05"}
    )
    assert list(answer["threshold"]) == [found[1].threshold] * 2
    assert list(answer["decision"]) == [logit >= found[1].threshold for logit in answer["logit"]]


def test_a_broken_export_is_not_registered(trained: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "run_onnx", lambda session, pixels: (np.full(len(pixels), 9.0),))
    with pytest.raises(InputError, match="differs from the trained one by"):
        release(trained.good, "broken", data_licence="nobody else's")
    assert version_at("broken", CHAMPION) is None
    assert versions("broken") == {}


@pytest.mark.usefixtures("unchecked")
def test_another_test_part_raises_an_error(trained: Runs) -> None:
    release(trained.middling, "local")
    with pytest.raises(InputError, match="the champion, version 1 of local, which has another test part"):
        release(trained.elsewhere, "local")
    assert holders("local") == (1, None)
    assert sorted(versions("local")) == [1]


@pytest.mark.usefixtures("unchecked")
def test_the_best_run_of_an_experiment_has_the_highest_validation_ap(
    trained: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    client = mlflow.MlflowClient()
    known = mlflow.get_run(trained.blind).data.metrics["val_ap"]
    client.log_metric(trained.blind, "val_ap", 2.0, step=98)  # the worst run on the test part
    client.delete_run(trained.elsewhere)
    try:
        release("", "chosen")
    finally:
        client.restore_run(trained.elsewhere)
        client.log_metric(trained.blind, "val_ap", known, step=99)
    version = version_at("chosen", CHAMPION)
    assert version is not None
    assert version.tags["run"] == trained.blind
    assert "best of 3; 1 have none" in capsys.readouterr().out


def test_runs_on_other_data_or_of_another_size_are_not_compared(trained: Runs) -> None:
    with pytest.raises(InputError, match="2 combinations of dataset, split and geometry") as refusal:
        release("", "mixed")
    assert trained.elsewhere in str(refusal.value), "the best run of each combination"
    assert trained.good in str(refusal.value)
    assert versions("mixed") == {}
    client = mlflow.MlflowClient()
    client.delete_run(trained.elsewhere)
    try:
        size = client.search_runs(["1"], "attributes.status = 'FINISHED'", max_results=1)[0]
        other = client.create_run(size.info.experiment_id, run_name="larger")
        run = mlflow.get_run(trained.good)
        for name, value in (run.data.params | {"width": "999"}).items():
            client.log_param(other.info.run_id, name, value)
        client.log_inputs(other.info.run_id, run.inputs.dataset_inputs)
        client.set_tag(other.info.run_id, "inandout.stage", "classify")
        client.log_metric(other.info.run_id, "val_ap", 0.5)
        client.set_terminated(other.info.run_id)
        with pytest.raises(InputError, match=f"2 combinations.*{other.info.run_id}"):
            release("", "mixed")
    finally:
        client.restore_run(trained.elsewhere)
        client.delete_run(other.info.run_id)


@pytest.mark.usefixtures("unchecked")
def test_a_run_that_reused_a_result_can_be_promoted(trained: Runs) -> None:
    release(pointer_to(trained.middling), "pointed")
    version = version_at("pointed", CHAMPION)
    assert version is not None
    assert version.tags["run"] == trained.middling


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": "recall>=0.95"}, "needs 59 defective validation parts .* there are 12"),
        ({"points": "fpr<=0.01"}, "needs 299 good validation parts .* there are 60"),
        ({"points": "f1"}, "no operating point"),
        ({"points": " , "}, "points is empty"),
        ({"run": "no-such-run"}, "no-such-run"),
    ],
)
def test_invalid_options_raise_an_error_before_the_export(
    trained: Runs, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        promote(PromoteConfig(**{"run": trained.good, "name": "refused"} | changes))
    assert versions("refused") == {}


def test_zero_shot_has_no_positives_to_choose_a_threshold(trained: Runs) -> None:
    for rule in ("recall>=0.5", "cost 50:1"):
        with pytest.raises(InputError, match="zero and few shots"):
            release(trained.zero, "zero", points=rule)


def test_model_names_with_path_characters_raise_an_error() -> None:
    for name in ("../x", "a/b", "a:b", "", "a'b", "x" * 101, "-x", "a\nb"):
        with pytest.raises(ValueError, match="name"):
            PromoteConfig(name=name)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.torture
def test_concurrent_promotions_set_one_champion(trained: Runs) -> None:
    for run in (trained.middling, trained.good):
        release(run, f"before {run}")  # the slow steps are reused then, so that both reach the gate at once
    processes = [start("promote", "--run", run, "--name", "race") for run in (trained.middling, trained.good)]
    outputs = [process.communicate(timeout=400) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(error for _, error in outputs)
    found = versions("race")
    assert sorted(found) == [1, 2]
    first, second = found[1], found[2]
    assert first[GATE] == "passed: the first version of this name"
    assert "over champion version 1" in second[GATE], "the second is compared with the first"
    assert holders("race") == ((2, 1) if second["run"] == trained.good else (1, None))
