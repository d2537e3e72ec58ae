from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet50_Weights, resnet50

from inandout.classifier.resnet import build_classifier
from inandout.errors import InputError

IMAGES = torch.randint(0, 256, (2, 3, 40, 32), dtype=torch.uint8)


def test_uint8_images_give_one_logit_each() -> None:
    logits = build_classifier("none", 0).eval()(IMAGES)
    assert logits.shape == (2,)
    assert logits.dtype == torch.float32


def test_normalisation_is_part_of_the_model() -> None:
    model = build_classifier("none", 0).eval()
    normalised = (IMAGES / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    assert torch.allclose(model(IMAGES), model.resnet(normalised).flatten(), atol=1e-4)


def test_the_seed_sets_the_weights_and_keeps_the_global_generator() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second, other = (build_classifier("none", seed).resnet.fc.weight for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.rand(1), expected)


def test_a_safetensors_file_sets_all_weights_but_the_last_layer(tmp_path: Path) -> None:
    source = resnet50(weights=None)
    save_file(source.state_dict(), tmp_path / "resnet.safetensors")
    model = build_classifier(str(tmp_path / "resnet.safetensors"), 0)
    assert torch.equal(model.resnet.layer3[0].conv1.weight, source.layer3[0].conv1.weight)
    assert model.resnet.fc.weight.shape == (1, 2048)


def test_a_pickle_raises_an_error(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="must be 'none', 'imagenet' or the path of a"):
        build_classifier(str(tmp_path / "weights.pth"), 0)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"PK\x03\x04"])
def test_a_damaged_file_raises_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a readable"):
        build_classifier(str(tmp_path / "w.safetensors"), 0)


def test_weights_of_another_model_raise_an_error(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7), "spam": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="not a ResNet-50 state dict"):
        build_classifier(str(tmp_path / "w.safetensors"), 0)
    save_file({"conv1.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="shapes do not match"):
        build_classifier(str(tmp_path / "w.safetensors"), 0)


def test_a_failed_imagenet_download_raises_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = ResNet50_Weights.IMAGENET1K_V1
    monkeypatch.setattr(type(weights), "url", property(lambda self: "http://127.0.0.1:9/resnet50-0676ba61.pth"))
    with pytest.raises(InputError, match="weights=imagenet cannot be downloaded"):
        build_classifier("imagenet", 0)
