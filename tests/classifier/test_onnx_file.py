from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from inandout.classifier import onnx_file
from inandout.classifier.onnx_file import Deciding, largest_difference, open_onnx, run_onnx, write_onnx
from inandout.classifier.resnet import DefectNet
from inandout.classifier.training import predict
from inandout.errors import InputError

pytestmark = pytest.mark.slow

Written = tuple[DefectNet, float, onnxruntime.InferenceSession, Path, float]


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 48, 32, 3), dtype=np.uint8)


PARTED = images(8, seed=1)


def small() -> DefectNet:
    """Two layers in place of a ResNet-50, whose export takes ten times as long; the stage's test does it once."""
    model = DefectNet()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.resnet = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)
        )
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A file whose threshold parts the `PARTED` images."""
    model = small()
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    threshold = float(np.median(predict(model, PARTED)))
    difference = write_onnx(model, threshold, images(4), path, {"run": "abc"})
    session = open_onnx(path)
    return model, threshold, session, path, difference


def test_any_number_of_images_gets_the_logits_of_torch(written: Written) -> None:
    model, _, session, _, _ = written
    for n in (1, 2, 5):
        logit, score, _ = run_onnx(session, images(n, seed=n))
        expected = predict(model, images(n, seed=n))
        np.testing.assert_allclose(logit, expected, atol=1e-5)
        np.testing.assert_allclose(score, 1 / (1 + np.exp(-expected)), atol=1e-5)


def test_the_threshold_inside_decides(written: Written) -> None:
    _, threshold, session, _, _ = written
    logit, _, decision = run_onnx(session, PARTED)
    np.testing.assert_array_equal(decision, logit >= threshold)
    assert decision.sum() == 4


def test_a_threshold_just_above_a_score_is_not_rounded_to_it() -> None:
    model = small()
    one = torch.from_numpy(images(1).transpose(0, 3, 1, 2).copy())
    score = float(model(one)[0])
    assert Deciding(model, score)(one)[2].tolist() == [True]
    assert Deciding(model, float(np.nextafter(score, np.inf)))(one)[2].tolist() == [False]


def test_the_file_says_what_it_is_and_how_well_it_agrees(written: Written) -> None:
    _, _, session, path, difference = written
    known = session.get_modelmeta().custom_metadata_map
    assert known["run"] == "abc"
    assert float(known["max_difference"]) == difference < 1e-4
    (images_in,) = session.get_inputs()
    assert (images_in.type, images_in.shape[1:]) == ("tensor(uint8)", [3, 48, 32])
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]


def test_a_file_that_differs_is_refused_and_none_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    monkeypatch.setattr(onnx_file, "predict", lambda model, pixels: predict(model, pixels) + 2e-4)
    with pytest.raises(InputError, match=r"differs from the trained one by 0\.0002"):
        write_onnx(model, 0.0, images(2), tmp_path / "model.onnx", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("theirs", "fits"), [(1e-4 - 1e-9, True), (1.1e-4, False), (np.nan, False)])
def test_the_tolerance(theirs: float, fits: bool) -> None:
    if fits:
        assert largest_difference(np.zeros(2), np.array([0, theirs])) == theirs
    else:
        with pytest.raises(InputError, match="nothing was written"):
            largest_difference(np.zeros(2), np.array([0, theirs]))
