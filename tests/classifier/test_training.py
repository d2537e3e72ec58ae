from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from inandout.checkpoint import NonFiniteLossError, load_checkpoint
from inandout.classifier import training
from inandout.classifier.backbone import DefectNet, build_classifier
from inandout.classifier.config import BackboneConfig, FitConfig, Optimiser
from inandout.classifier.training import fit, predict, predictor
from inandout.errors import InputError
from tests.conftest import draw

pytestmark = pytest.mark.slow

LABELS = np.array([0] * 10 + [1] * 5)
PIXELS = np.stack([draw(i, bool(label))[0] for i, label in enumerate(LABELS)])


class StopError(Exception):
    """Simulates an interruption between two epochs."""


def train(
    epochs: int, checkpoint: Path | None = None, stop_after: int | None = None, optimiser: Optimiser = "adamw"
) -> DefectNet:
    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        if epoch == stop_after:
            raise StopError

    model = build_classifier(BackboneConfig(), 0)
    fit(
        model, PIXELS, LABELS, FitConfig(epochs=epochs, batch_size=4, optimiser=optimiser, lr=0.01), seed=0,
        checkpoint=checkpoint, on_epoch=on_epoch,
    )  # fmt: skip
    return model


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_resumed_run_ends_with_bit_identical_weights(tmp_path: Path, optimiser: Optimiser) -> None:
    expected = train(3, optimiser=optimiser).state_dict()
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(StopError):
        train(3, path, 2, optimiser)
    assert len(load_checkpoint(path).progress["history"]) == 1
    resumed = train(3, path, optimiser=optimiser).state_dict()
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, resumed[name]), name


def test_an_fp16_training_keeps_weights_in_fp32_and_resumes_with_the_scale_of_the_loss(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"

    def train_fp16(checkpoint: Path | None = None, stop_after: int | None = None) -> dict[str, torch.Tensor]:
        def on_epoch(epoch: int, values: dict[str, float]) -> None:
            if epoch == stop_after:
                raise StopError

        model, config = build_classifier(BackboneConfig(backbone="resnet18"), 0), FitConfig(epochs=2, batch_size=4)
        fit(
            model, PIXELS[8:12, :16, :16], LABELS[8:12], config, seed=0, checkpoint=checkpoint, precision="fp16",
            on_epoch=on_epoch,
        )  # fmt: skip
        return model.state_dict()

    expected = train_fp16()
    with pytest.raises(StopError):
        train_fp16(path, stop_after=2)
    assert load_checkpoint(path).progress["scaler"]["scale"] > 0
    resumed = train_fp16(path)
    assert {tensor.dtype for tensor in resumed.values() if tensor.is_floating_point()} == {torch.float32}
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in expected.items())


def test_16_bit_logits_are_near_those_of_fp32_and_have_no_ties() -> None:
    model = build_classifier(BackboneConfig(backbone="resnet18"), 0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.5)  # residual branches begin at zero
    exact, rounded = predict(model, PIXELS), predict(model, PIXELS, precision="bf16")
    assert 0 < np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()
    assert len(np.unique(rounded)) == len(PIXELS), "the last layer computes in fp32"


def test_a_frozen_backbone_predicts_in_the_precision() -> None:
    model = build_classifier(BackboneConfig(backbone="resnet18", freeze="all"), 0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.5)  # residual branches begin at zero
    assert np.allclose(predictor(model, PIXELS, "bf16")(), predict(model, PIXELS, precision="bf16"), rtol=1e-5)
    assert not np.allclose(predictor(model, PIXELS, "bf16")(), predict(model, PIXELS), rtol=1e-5)


def test_a_compiled_network_trains_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    losses = []
    for compiled in (False, True):
        model = build_classifier(BackboneConfig(backbone="resnet18"), 0)
        config = FitConfig(epochs=2, batch_size=5, lr=0.001, compile=compiled)
        losses.append([values["loss"] for values in fit(model, PIXELS, LABELS, config, seed=0)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_machine_that_cannot_compile_gets_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    with pytest.raises(InputError, match=r"compile = True: torch\.compile failed .* give compile=false"):
        fit(build_classifier(BackboneConfig(backbone="resnet18"), 0), PIXELS, LABELS, FitConfig(compile=True), seed=0)


def test_training_lowers_the_loss_and_separates_the_classes() -> None:
    model = build_classifier(BackboneConfig(), 0)
    history = fit(model, PIXELS, LABELS, FitConfig(epochs=8, batch_size=5, optimiser="adamw", lr=0.001), seed=0)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    logits = predict(model, PIXELS)
    assert logits[LABELS == 1].mean() > logits[LABELS == 0].mean()


def test_callbacks_are_called_once_per_epoch() -> None:
    epochs: list[int] = []
    fit(
        build_classifier(BackboneConfig(), 0), PIXELS, LABELS,
        FitConfig(epochs=2, batch_size=8, optimiser="sgd", lr=0.01), seed=0,
        on_epoch=lambda epoch, values: epochs.append(epoch),
    )  # fmt: skip
    assert epochs == [1, 2]


def test_a_resumed_run_reports_the_values_of_all_epochs(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    calls: list[tuple[int, dict[str, float]]] = []

    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        values.setdefault("added", float(len(calls)))
        calls.append((epoch, dict(values)))

    for epochs in (1, 3):
        fit(
            build_classifier(BackboneConfig(), 0), PIXELS, LABELS,
            FitConfig(epochs=epochs, batch_size=8, optimiser="sgd", lr=0.01), seed=0,
            checkpoint=path, on_epoch=on_epoch,
        )  # fmt: skip
    assert [epoch for epoch, _ in calls] == [1, 1, 2, 3]
    assert calls[1] == calls[0], "values added in the first run are kept"


def test_a_non_finite_loss_raises_an_error_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    train(1, path)
    before = path.read_bytes()
    model = build_classifier(BackboneConfig(), 0)
    with pytest.raises(NonFiniteLossError, match=r"epoch 2, step \d"):
        config = FitConfig.model_construct(epochs=9, batch_size=4, optimiser="adamw", lr=1e38)
        fit(model, PIXELS, LABELS, config, seed=0, checkpoint=path)
    assert path.read_bytes() == before


def test_an_invalid_checkpoint_raises_an_error(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(InputError, match="not a checkpoint of this program"):
        train(1, path)


def test_prediction_is_independent_of_the_batch_size_and_keeps_the_mode() -> None:
    model = build_classifier(BackboneConfig(), 0).train()
    assert predict(model, PIXELS, 4) == pytest.approx(predict(model, PIXELS, 15), abs=1e-5)
    assert model.training
    assert predict(model, PIXELS[:0]).shape == (0,)


@pytest.mark.parametrize("every", [1, 3])
def test_the_loss_of_an_epoch_does_not_depend_on_when_it_is_read(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    config, model = FitConfig(epochs=1, batch_size=2, lr=0.01), BackboneConfig(backbone="resnet18")
    expected = fit(build_classifier(model, 0), PIXELS, LABELS, config, seed=0)
    monkeypatch.setattr(training, "READ_EVERY", every)
    assert fit(build_classifier(model, 0), PIXELS, LABELS, config, seed=0) == expected


def test_a_non_finite_loss_names_its_step() -> None:
    losses = [torch.tensor(value) for value in (1.0, float("nan"), 1.0)]
    with pytest.raises(NonFiniteLossError, match="nan at epoch 1, step 22"):
        training._read(losses, epoch=1, step=23, lr=0.1)
