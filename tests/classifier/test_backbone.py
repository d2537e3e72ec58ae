import os
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import ResNet50_Weights, mobilenet_v2, resnet50

from inandout.classifier.backbone import (
    NETWORKS,
    DefectNet,
    Prediction,
    build_classifier,
    load_classifier,
    save_classifier,
)
from inandout.classifier.config import Backbone, BackboneConfig, FitConfig, Freeze
from inandout.classifier.training import fit, predict, predictor
from inandout.errors import InputError
from tests.conftest import draw

IMAGES = torch.randint(0, 256, (2, 3, 40, 32), dtype=torch.uint8)
LABELS = np.array([0] * 6 + [1] * 4)
PIXELS = np.stack([draw(i, bool(label))[0] for i, label in enumerate(LABELS)])
GIVEN = os.environ.get("INANDOUT_WEIGHTS", "")
"""Optional file with torchvision's MobileNetV2 trained on ImageNet."""


def from_file(path: Path, backbone: Backbone = "resnet50", freeze: Freeze = "none") -> DefectNet:
    return build_classifier(BackboneConfig(backbone=backbone, weights=str(path), freeze=freeze), 0)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def trained(freeze: Freeze, checkpoint: Path | None = None, epochs: int = 2) -> DefectNet:
    model = build_classifier(BackboneConfig(backbone="mobilenet_v2", freeze=freeze), 0)
    fit(model, PIXELS, LABELS, FitConfig(epochs=epochs, batch_size=4, lr=0.01), seed=0, checkpoint=checkpoint)
    return model


def test_the_paper_s_network_is_the_default() -> None:
    model = build_classifier(BackboneConfig(), 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        source, last = resnet50(weights=None, zero_init_residual=True), nn.Linear(2048, 1)
    assert torch.equal(model.network.layer3[0].conv1.weight, source.layer3[0].conv1.weight)
    assert torch.equal(model.last.weight, last.weight)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("backbone", get_args(Backbone))
def test_uint8_images_give_one_logit_each_and_its_gradient_repeats(backbone: Backbone) -> None:
    model = build_classifier(BackboneConfig(backbone=backbone), 0)
    logits = model.eval()(IMAGES)
    assert logits.shape == (2,)
    assert logits.dtype == torch.float32
    assert torch.equal(model.train()(IMAGES), model(IMAGES)), "training draws no random numbers"


@pytest.mark.parametrize("backbone", get_args(Backbone))
def test_the_convolutional_layers_give_the_features(backbone: Backbone) -> None:
    model = build_classifier(BackboneConfig(backbone=backbone), 0).eval()
    to_8, to_16, deepest = model.convolutions()
    images = torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8)
    finest = to_8(model.normalise(images))
    fine = to_16(finest)
    coarse = deepest(fine)
    assert finest.shape[2:] == (12, 8)
    assert (finest.shape[1], fine.shape[1]) == NETWORKS[backbone].channels
    assert fine.shape[2:] == (6, 4)
    assert coarse.shape[2:] == (3, 2)
    assert torch.allclose(coarse.mean((2, 3)), model.features(images), atol=1e-5)


def test_normalisation_is_part_of_the_model() -> None:
    model = build_classifier(BackboneConfig(), 0).eval()
    normalised = (IMAGES / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    assert torch.allclose(model(IMAGES), model.last(model.network(normalised)).flatten(), atol=1e-4)


def test_the_seed_sets_the_weights_and_keeps_the_global_generator() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second, other = (build_classifier(BackboneConfig(), seed).last.weight for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("head", [True, False])
def test_a_safetensors_file_sets_all_weights_but_the_last_layer(tmp_path: Path, head: bool) -> None:
    source = mobilenet_v2(weights=None).state_dict()
    given = {name: value for name, value in source.items() if head or not name.startswith("classifier.")}
    save_file(given, tmp_path / "mobilenet.safetensors")
    model = from_file(tmp_path / "mobilenet.safetensors", "mobilenet_v2")
    assert all(torch.equal(value, source[name]) for name, value in model.network.state_dict().items())
    assert torch.equal(model.last.weight, build_classifier(BackboneConfig(backbone="mobilenet_v2"), 0).last.weight)


def test_a_pickle_raises_an_error(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="must be 'none', 'imagenet' or the path of a"):
        from_file(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"PK\x03\x04"], ids=["empty", "noise", "zip"])
def test_a_damaged_file_raises_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a readable"):
        from_file(tmp_path / "w.safetensors")


def test_a_missing_file_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable"):
        from_file(tmp_path / "w.safetensors")


def test_missing_unknown_and_misshapen_tensors_raise_one_error(tmp_path: Path) -> None:
    source = mobilenet_v2(weights=None).state_dict()
    source["features.0.0.weight"] = torch.zeros(32, 3, 5, 5)
    source["spam"] = source.pop("features.18.1.bias")
    save_file(source, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="not a state dict of backbone=mobilenet_v2") as error:
        from_file(tmp_path / "w.safetensors", "mobilenet_v2")
    for problem in (
        "1 tensors are missing, for example 'features.18.1.bias'",
        "1 tensors are unknown, for example 'spam'",
        "1 tensors are of another shape, for example 'features.0.0.weight'",
    ):
        assert problem in str(error.value)


def test_weights_of_another_network_raise_an_error(tmp_path: Path) -> None:
    save_file(mobilenet_v2(weights=None).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"not a state dict of backbone=resnet50: \d+ tensors are missing"):
        from_file(tmp_path / "w.safetensors")


def test_a_failed_imagenet_download_raises_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = ResNet50_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(weights), "url", property(lambda self: "http://127.0.0.1:9/resnet50-0676ba61.pth"))
    with pytest.raises(InputError, match="weights=imagenet cannot be downloaded"):
        build_classifier(BackboneConfig(weights="imagenet"), 0)


@pytest.mark.parametrize("backbone", get_args(Backbone))
def test_a_saved_classifier_is_loaded_with_its_backbone_and_can_start_another(
    tmp_path: Path, backbone: Backbone
) -> None:
    model = build_classifier(BackboneConfig(backbone=backbone), 3)
    save_classifier(model, tmp_path / "c.safetensors")
    loaded = load_classifier(tmp_path / "c.safetensors")
    assert loaded.backbone == backbone
    assert not loaded.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state(loaded).items())
    again = from_file(tmp_path / "c.safetensors", backbone)
    assert all(torch.equal(value, model.network.state_dict()[name]) for name, value in state(again.network).items())
    assert not torch.equal(again.last.weight, model.last.weight)


def test_a_file_of_an_older_version_is_a_resnet50(tmp_path: Path) -> None:
    model = build_classifier(BackboneConfig(), 3)
    save_classifier(model, tmp_path / "c.safetensors")
    save_file(load_file(tmp_path / "c.safetensors"), tmp_path / "old.safetensors")
    assert np.array_equal(predict(load_classifier(tmp_path / "old.safetensors"), PIXELS), predict(model, PIXELS))


@pytest.mark.parametrize("metadata", [None, {"backbone": "resnet18"}, {"backbone": "vgg"}])
def test_a_file_that_is_no_classifier_raises_an_error(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"fc.weight": torch.zeros(1, 512)}, tmp_path / "c.safetensors", metadata)
    with pytest.raises(InputError, match="not the weights of a trained classifier"):
        load_classifier(tmp_path / "c.safetensors")


def test_frozen_norm_layers_keep_statistics_and_parameters() -> None:
    model = trained("norm")
    after = state(model)
    untrained = state(build_classifier(BackboneConfig(backbone="mobilenet_v2"), 0))
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    changed = {name for name in after if not torch.equal(after[name], untrained[name])}
    assert len(norms) == 52
    assert changed == {name for name in after if name.rpartition(".")[0] not in norms}
    assert all((p.grad is None) == (name.rpartition(".")[0] in norms) for name, p in model.named_parameters())
    assert model.training


def test_a_frozen_backbone_keeps_everything_but_the_last_layer() -> None:
    model = trained("all")
    untrained = state(build_classifier(BackboneConfig(backbone="mobilenet_v2"), 0))
    changed = {name for name, value in state(model).items() if not torch.equal(value, untrained[name])}
    assert changed == {"last.weight", "last.bias"}
    assert all((p.grad is None) == name.startswith("network.") for name, p in model.named_parameters())
    assert model.training
    assert not model.network.training


def test_features_computed_once_train_as_features_computed_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    once = trained("all")
    passes: list[int] = []
    forward = DefectNet.features
    monkeypatch.setattr(DefectNet, "features", lambda self, images: passes.append(len(images)) or forward(self, images))
    model = build_classifier(BackboneConfig(backbone="mobilenet_v2", freeze="all"), 0)
    monkeypatch.setattr("inandout.classifier.training._forward", lambda net, *_: in_every_step(net))
    fit(model, PIXELS, LABELS, FitConfig(epochs=2, batch_size=4, lr=0.01), seed=0)
    assert sum(passes) == 2 * 8
    assert np.allclose(predict(model, PIXELS), predict(once, PIXELS), atol=1e-4)


@pytest.mark.parametrize("freeze", ["none", "all"])
def test_a_predictor_follows_the_weights(freeze: Freeze) -> None:
    model = build_classifier(BackboneConfig(backbone="mobilenet_v2", freeze=freeze), 0)
    predict_all = predictor(model, PIXELS)
    first = predict_all()
    with torch.no_grad():
        model.last.bias.add_(1)
    assert predict_all() == pytest.approx(first + 1, abs=1e-6)
    assert predict_all() == pytest.approx(predict(model, PIXELS), abs=1e-5)


def in_every_step(model: DefectNet):  # type: ignore[no-untyped-def]
    return lambda batch: Prediction(model(torch.from_numpy(PIXELS[batch]).permute(0, 3, 1, 2)), None)


@pytest.mark.parametrize("freeze", ["none", "norm", "all"])
def test_a_resumed_training_is_exact(tmp_path: Path, freeze: Freeze) -> None:
    expected = state(trained(freeze))
    trained(freeze, tmp_path / "checkpoint.safetensors", epochs=1)
    resumed = state(trained(freeze, tmp_path / "checkpoint.safetensors"))
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())


def test_the_identity_of_the_weights_is_their_content(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"a")
    config = BackboneConfig(weights=str(path))
    first = config.inputs()
    assert config.weights_identity() == first["weights"] == "ca978112ca1bbdcafac231b39a23dc4d"
    path.write_bytes(b"another")
    assert config.inputs() != first
    assert BackboneConfig().inputs() == {}
    assert BackboneConfig().weights_identity() == "none"


def test_every_backbone_has_an_entry() -> None:
    assert set(NETWORKS) == set(get_args(Backbone))


@pytest.mark.skipif(not Path(GIVEN).is_file(), reason="INANDOUT_WEIGHTS names no file")
def test_imagenet_features_of_a_real_file_separate_better_than_random_ones() -> None:
    config = BackboneConfig(backbone="mobilenet_v2", weights=GIVEN, freeze="all")
    pixels = np.repeat(np.repeat(PIXELS, 4, axis=1), 4, axis=2)
    losses = []
    for start in (config, config.model_copy(update={"weights": "none"})):
        model = build_classifier(start, 0)
        history = fit(model, pixels, LABELS, FitConfig(epochs=5, batch_size=4, lr=0.01), seed=0)
        losses.append(history[-1]["loss"])
    assert losses[0] < 0.5 * losses[1]
