from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from inandout.classifier import onnx_file
from inandout.classifier.backbone import DefectNet, build_classifier
from inandout.classifier.config import BackboneConfig
from inandout.classifier.onnx_file import Deciding, largest_difference, open_onnx, run_onnx, write_onnx
from inandout.classifier.training import predict
from inandout.errors import InputError

pytestmark = pytest.mark.slow

Written = tuple[DefectNet, float, onnxruntime.InferenceSession, Path, float]


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 48, 32, 3), dtype=np.uint8)


SEPARATED = images(8, seed=1)


def small() -> DefectNet:
    """Two layers instead of a ResNet-50, whose export takes ten times as long and is tested with the stage."""
    model = DefectNet()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.network = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model.last = nn.Linear(8, 1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Export with a threshold that separates the `SEPARATED` images."""
    model = small()
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    threshold = float(np.median(predict(model, SEPARATED)))
    difference = write_onnx(model, threshold, images(4), path, {"run": "abc"})
    session = open_onnx(path)
    return model, threshold, session, path, difference


def test_any_batch_size_gives_the_logits_of_pytorch(written: Written) -> None:
    model, _, session, _, _ = written
    for n in (1, 2, 5):
        logit, score, _ = run_onnx(session, images(n, seed=n))
        expected = predict(model, images(n, seed=n))
        np.testing.assert_allclose(logit, expected, atol=1e-5)
        np.testing.assert_allclose(score, 1 / (1 + np.exp(-expected)), atol=1e-5)


def test_a_mobilenet_gives_the_logits_of_pytorch(tmp_path: Path) -> None:
    model = build_classifier(BackboneConfig(backbone="mobilenet_v2"), 0).requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model(torch.from_numpy(images(8).transpose(0, 3, 1, 2)))  # statistics, without which all logits are equal
    model.eval()
    assert write_onnx(model, 0.0, images(3), tmp_path / "model.onnx", {}) < 1e-4
    logit, _, _ = run_onnx(open_onnx(tmp_path / "model.onnx"), images(5))
    np.testing.assert_allclose(logit, predict(model, images(5)), atol=1e-4)
    assert np.ptp(logit) > 1e-3, "equal logits would make the comparison meaningless"


def test_decisions_apply_the_threshold(written: Written) -> None:
    _, threshold, session, _, _ = written
    logit, _, decision = run_onnx(session, SEPARATED)
    np.testing.assert_array_equal(decision, logit >= threshold)
    assert decision.sum() == 4


def test_a_threshold_just_above_a_logit_is_not_rounded_to_it() -> None:
    model = small()
    image = torch.from_numpy(images(1).transpose(0, 3, 1, 2).copy())
    logit = float(model(image)[0])
    assert Deciding(model, logit)(image)[2].tolist() == [True]
    assert Deciding(model, float(np.nextafter(logit, np.inf)))(image)[2].tolist() == [False]


def test_metadata_contain_the_run_and_the_maximum_difference(written: Written) -> None:
    _, _, session, path, difference = written
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["run"] == "abc"
    assert float(metadata["max_difference"]) == difference < 1e-4
    (images_in,) = session.get_inputs()
    assert (images_in.type, images_in.shape[1:]) == ("tensor(uint8)", [3, 48, 32])
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]


def test_a_differing_export_raises_an_error_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    monkeypatch.setattr(onnx_file, "predict", lambda model, pixels: predict(model, pixels) + 2e-4)
    with pytest.raises(InputError, match=r"differs from the trained one by 0\.0002"):
        write_onnx(model, 0.0, images(2), tmp_path / "model.onnx", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("difference", "allowed"), [(1e-4 - 1e-9, True), (1.1e-4, False), (np.nan, False)])
def test_differences_above_the_tolerance_raise_an_error(difference: float, allowed: bool) -> None:
    if allowed:
        assert largest_difference(np.zeros(2), np.array([0, difference])) == difference
    else:
        with pytest.raises(InputError, match="no file was written"):
            largest_difference(np.zeros(2), np.array([0, difference]))
