"""A tiny registered classifier, served by `mlflow models serve` and queried over HTTP; all tests share one server."""

import base64
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pytest
import requests
from PIL import Image

import inandout
from benchmarks.torture.bad_requests import Answer, BadRequest, send_all
from inandout.classifier.heatmap import heat_maps
from inandout.classifier.pixels import load_pixels
from inandout.classifier.training import predict
from inandout.data.config import Geometry
from inandout.evaluation.operating_points import OperatingPoint
from inandout.serving.request_images import FOLDER, MAX_TEXT
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.train import classify
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.release.promote import log_classifier
from tests.conftest import write_tiny

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Serve over HTTP\n") : PAGE.index("## Export to ONNX\n")]
PORT = "5001"
"""Port on the page; the test uses a free one."""
GEOMETRY = Geometry(width=48, height=64)


class Served(NamedTuple):
    url: str
    port: int
    trained: TrainedClassifier
    folder: Path
    uri: str

    def post(self, body: Any, **options: Any) -> requests.Response:
        return requests.post(f"{self.url}/invocations", **{"json": body, "timeout": 60, **options})

    def ask(self, *rows: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
        answer = self.post({"dataframe_records": list(rows), "params": params})
        assert answer.status_code == 200, answer.text
        predictions: list[dict[str, Any]] = answer.json()["predictions"]
        return predictions


def point(rule: str, threshold: float) -> OperatingPoint:
    return OperatingPoint(
        rule=rule,
        threshold=threshold,
        measured_on="validation",
        recall=None,
        fpr=None,
        escapes=None,
        false_rejects=None,
    )


def in_base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setattr("inandout.stages.classify.train._log_export", lambda *_: None)  # takes longer than the training
        data = write_tiny(folder / "tiny")
        config = ClassifyConfig.from_flat(data=str(data), n_aug=0, epochs=2, **GEOMETRY.model_dump())
        trained = TrainedClassifier.open(classify(config).run_id)
        with mlflow.start_run():
            middle = float(np.median(trained.scores().logits))
            uri = log_classifier(trained, [point("validation", middle), point("recall>=0.9", -1000.0)], "validation")
        version = mlflow.register_model(uri, "inandout")
        mlflow.MlflowClient().set_registered_model_alias("inandout", "champion", version.version)
        yield from serve(folder, trained, uri)


def serve(folder: Path, trained: TrainedClassifier, uri: str) -> Iterator[Served]:
    """Serve the model with the command of the page."""
    (command,) = re.findall(r"^(mlflow models serve -m .*)$", SECTION, re.MULTILINE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", FOLDER: str(folder / "tiny"),
    }  # fmt: skip
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command.replace(PORT, str(port)).split(), env=environment, cwd=folder, stdout=log, stderr=log
        )
        try:
            wait_for(process, port, folder / "server.log")
            yield Served(f"http://127.0.0.1:{port}", port, trained, folder, uri)
        finally:
            process.terminate()  # MLflow's server ends with it
            process.wait(30)


def wait_for(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            if requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def test_served_logits_equal_the_logits_of_the_run(served: Served) -> None:
    files = [sample.image for sample in served.trained.test]
    answer = served.ask(*({"image": in_base64(path)} for path in files))
    logits = np.array([row["logit"] for row in answer])
    pixels = load_pixels(files, GEOMETRY)
    np.testing.assert_allclose(logits, predict(served.trained.load(), pixels), atol=1e-5)
    np.testing.assert_allclose(logits, served.trained.scores().logits, atol=1e-5)
    assert np.ptp(logits) > 1e-3, "with equal scores the test would be meaningless"
    np.testing.assert_allclose([row["score"] for row in answer], 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert [row["decision"] for row in answer] == [row["logit"] >= row["threshold"] for row in answer]
    assert {row["decision"] for row in answer} == {True, False}
    assert {(row["rule"], row["model_version"]) for row in answer} == {("validation", "inandout/1")}
    assert all("heatmap" not in row for row in answer)


def test_base64_pixel_values_and_path_give_the_same_logit(served: Served) -> None:
    path = served.trained.test[-1].image
    levels = np.array(Image.open(path))
    rows = [
        {"image": in_base64(path)},
        {"image": levels.tolist()},
        {"image": levels[:, :, 0].tolist()},
        {"path": path.name},
    ]
    logits = [row["logit"] for row in served.ask(*rows)]
    np.testing.assert_allclose(logits, logits[0], atol=1e-5)


def test_a_rule_can_be_chosen_and_an_unknown_one_is_refused_with_the_known_ones(served: Served) -> None:
    row = {"image": in_base64(served.trained.test[0].image)}
    (answer,) = served.ask(row, rule="recall>=0.9")
    assert (answer["threshold"], answer["decision"], answer["rule"]) == (-1000, True, "recall>=0.9")
    refused = served.post({"dataframe_records": [row], "params": {"rule": "fpr<=0.01"}})
    assert refused.status_code == 400
    expected = "rule 'fpr<=0.01' is not an operating point of this model; use one of validation, recall>=0.9"
    assert refused.json()["message"] == expected


def test_a_requested_heat_map_equals_the_heat_map_of_the_classifier(served: Served) -> None:
    files = [sample.image for sample in served.trained.test]
    answer = served.ask(*({"image": in_base64(path)} for path in files), heatmap=True)
    maps = [np.array(Image.open(io.BytesIO(base64.b64decode(row["heatmap"])))) for row in answer]
    expected = heat_maps(served.trained.load(), load_pixels(files, GEOMETRY))
    assert expected.any()
    for served_map, heat in zip(maps, expected, strict=True):
        assert served_map.shape == (64, 48)
        np.testing.assert_allclose(served_map, heat * 255, atol=1.5)


def test_invalid_requests_get_400_and_the_server_keeps_working(served: Served) -> None:
    good = {"image": in_base64(served.trained.test[0].image)}
    before = served.ask(good)
    gif = io.BytesIO()
    Image.new("RGB", (8, 8)).save(gif, "GIF")
    for row, message in (
        ({"image": "part.png"}, "not base64"),
        ({"image": base64.b64encode(b"hello").decode()}, "no image in a known format"),
        ({"image": base64.b64encode(gif.getvalue()).decode()}, "no image in a known format"),
        ({"image": good["image"][:400]}, "cannot be decoded"),
        ({"image": "A" * (MAX_TEXT + 4)}, "exceed the limit of 16,777,216"),
        ({"image": [[1, 2], [3]]}, "rows of different lengths"),
        ({"image": [[[0, 0, 300]]]}, "integers from 0 to 255"),
        ({"image": None}, "not none"),
        ({**good, "path": "0.png"}, "not both"),
        ({"path": "../server.log"}, "outside the folder"),
        ({"path": "/etc/passwd"}, "outside the folder"),
        ({"path": "tiny.csv"}, "no image in a known format"),
    ):
        answer = served.post({"dataframe_records": [good, row]})
        assert answer.status_code == 400, (row, answer.text)
        assert answer.json()["message"].startswith("image 1: "), "the sentence without the request data"
        assert message in answer.json()["message"]
        assert len(answer.json()["message"]) < 200
    assert served.post({"dataframe_records": []}).status_code == 400
    assert served.ask(good) == before


def test_mlflow_s_server_is_guarded(served: Served) -> None:
    """`tests/serving/test_guard.py` sends more of them, to the same code in this process."""

    def send(request: BadRequest) -> Answer:
        answer = served.post(None, json=None, data=request.body, headers=request.headers)
        return Answer(answer.status_code, answer.text)

    outcome = send_all(60, send)
    assert outcome.survived == outcome.tried == 60, "\n".join(outcome.notes)


def test_the_client_of_the_readme_works(served: Served, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    assert PORT in code
    (tmp_path / "part.png").write_bytes(served.trained.test[-1].image.read_bytes())
    command = [sys.executable, "-c", code.replace(PORT, str(served.port))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(defect|good) 0\.\d+ -?\d+\.\d+ validation inandout/1\n", done.stdout)
    assert Image.open(tmp_path / "heatmap.png").size == (48, 64)
    (tmp_path / "part.png").write_bytes(b"no image")
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("image 0: cannot be decoded")


def test_the_model_contains_no_pickle_and_the_accuracy_of_its_heat_maps(served: Served) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(served.uri))
    files = {path.name: path.read_bytes()[:4] for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "model_code.py", "settings.json", "classifier.safetensors"} <= set(files)
    assert not [
        name
        for name, start in files.items()
        if start.startswith((b"\x80", b"PK")) and not name.endswith(".safetensors")  # begins with its header's length
    ], "a pickle, or a ZIP archive of pickles"
    assert f"inandout=={inandout.__version__}" in (folder / "requirements.txt").read_text().split()
    measured = {metric.key: metric.value for metric in mlflow.get_logged_model(served.uri.split("/")[1]).metrics}
    assert set(measured) == {"pointing", "pointing_chance", "pointing_energy"}
    assert 0 < measured["pointing_chance"] < 1
    assert "of 6 images" in (folder / "artifacts" / "settings.json").read_text()
