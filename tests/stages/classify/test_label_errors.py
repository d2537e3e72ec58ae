import csv
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from inandout.classifier.backbone import DefectNet
from inandout.classifier.pixels import Pixels
from inandout.classifier.training import fit
from inandout.data.config import DataConfig
from inandout.data.manifest import read_manifest, write_manifest
from inandout.data.prepare import prepare
from inandout.errors import InputError
from inandout.stages.classify import label_errors as stage
from inandout.stages.classify.config import LabelErrorsConfig
from inandout.stages.classify.label_errors import find_label_errors
from inandout.stages.classify.suspects import SUSPECTS, read_suspects
from inandout.stages.review import run as review_stage
from inandout.stages.review.config import ReviewConfig
from inandout.stages.review.run import review
from inandout.tracking.runs import artifact_folder
from tests.conftest import SIDE

pytestmark = pytest.mark.slow

WRONG = ("3.png", "22.png")
"""A good part that is labelled as a defect, and a defect that is labelled as good."""


@pytest.fixture
def noisy(tiny: Path) -> Path:
    rows = [
        row.with_(label=1 - row.label, mask=None) if row.image.name in WRONG else row for row in read_manifest(tiny)
    ]
    write_manifest(rows, tiny)
    return tiny


def find(noisy: Path, **changes: object) -> str:
    quick = {"folds": 2, "epochs": 1, "batch_size": 8, "val_share": 0.2, "width": SIDE, "height": SIDE}
    return find_label_errors(LabelErrorsConfig.from_flat(**{"data": str(noisy)} | quick | changes))


def bright_is_a_defect(model: object, pixels: np.ndarray, **_: object) -> np.ndarray:
    """Return logits of an ideal classifier of the tiny dataset, instead of training one."""
    return np.where(pixels.reshape(len(pixels), -1).max(axis=1) > 200, 4.0, -4.0) + np.arange(len(pixels)) / 1000


@pytest.fixture
def ideal_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "fit", lambda *_, checkpoint, **__: checkpoint.touch())
    monkeypatch.setattr(stage, "predict", bright_is_a_defect)


def test_wrong_labels_come_first_and_a_review_writes_corrected_manifests(
    noisy: Path,
    project: Path,
    ideal_classifier: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_id = find(noisy)
    assert "2 of 28 labels contradict" in capsys.readouterr().out
    suspects = read_suspects(run_id)
    assert {suspect.sample.image.name for suspect in suspects[:2]} == set(WRONG)
    assert [suspect.contrary for suspect in suspects] == [True, True] + [False] * 26
    rows = list(csv.DictReader(artifact_folder(run_id, SUSPECTS).open()))
    assert [int(row["rank"]) for row in rows] == list(range(1, 29))
    assert {row["split"] for row in rows} == {"train", "val"}, "the test part is not used"
    assert mlflow.get_run(run_id).data.metrics["labels_contrary"] == 2
    assert "labels.png" in {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(run_id)}
    assert find(noisy) == run_id

    monkeypatch.setattr(review_stage, "serve", decide)
    review(ReviewConfig(pool=run_id))
    printed = capsys.readouterr().err
    assert "1 labels right, 2 wrong, 1 unsure of 28" in printed
    corrected = read_manifest(Path(printed.split("corrected: data=")[1].split(";")[0]))
    without = Path(printed.split("unsure labels: data=")[1].splitlines()[0])
    assert len(corrected) == 42
    assert {row.image.name: row.label for row in corrected if row.image.name in WRONG} == {"3.png": 0, "22.png": 1}
    left = prepare(DataConfig(data=str(without)), seed=0)
    assert len(left) == 39
    assert not {row.image.name for row in left} & set(WRONG)
    before = {row.image.name: row.split for row in read_manifest(artifact_folder(run_id, "manifest.csv"))}
    assert all(row.split == before[row.image.name] for row in [*left, *corrected]), "all keep their part"

    (noisy.parent / "5.png").unlink()
    with pytest.raises(InputError, match=r"5\.png: image of run .* is missing"):
        review(ReviewConfig(pool=run_id))


def decide(app: FastAPI, *_: object) -> None:
    """Review as a person who rejects the first two labels and is unsure about the third."""
    client = TestClient(app)
    session = client.get("/api/session").json()
    assert (session["about"], len(session["images"])) == ("labels", 28)
    assert [image["flags"] for image in session["images"][:3]] == [["contrary"], ["contrary"], []]
    assert {(image["label"], round(image["score"])) for image in session["images"][:2]} == {(1, 0), (0, 1)}
    with_mask = next(image for image in session["images"] if image["has_mask"])
    assert client.get(f"/labelled/{with_mask['id']}").status_code == 200
    for place, decision in enumerate(("reject", "reject", "unsure", "keep")):
        body = {"image": session["images"][place]["id"], "decision": decision, "reviewer": "Anna", "seen": 0}
        client.post("/api/decisions", json=body).raise_for_status()


def test_scores_are_out_of_fold_and_a_killed_run_resumes(
    noisy: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    def dies_at_the_second(model: DefectNet, pixels: Pixels, *how: Any, **where: Any) -> object:
        trained.append(len(pixels))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return fit(model, pixels, *how, **where)

    monkeypatch.setattr(stage, "fit", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        find(noisy)
    suspects = read_suspects(find(noisy))
    assert len(trained) == 3, "the first fold is reused"
    assert (28 - trained[0]) + (28 - trained[2]) == 28
    assert len({suspect.logit for suspect in suspects}) > 20
    assert [suspect.loss for suspect in suspects] == sorted((suspect.loss for suspect in suspects), reverse=True)
