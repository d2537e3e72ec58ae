"""Classifiers that score an image by a smooth maximum over its tiles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inandout.checkpoint import write_tensors
from inandout.classifier.backbone import DefectNet, build_classifier, load_classifier, save_classifier
from inandout.classifier.config import BackboneConfig, FitConfig, Freeze, Head
from inandout.classifier.heatmap import heat_maps
from inandout.classifier.onnx_file import open_onnx, run_onnx, write_onnx
from inandout.classifier.training import fit, predict, predictor
from inandout.errors import InputError

RESNET18 = BackboneConfig(backbone="resnet18", tile=64)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 128, 96, 3), dtype=np.uint8)
LABELS = np.array([0, 1] * 3)


def built(tile: int, head: Head = "image", freeze: Freeze = "none") -> DefectNet:
    """Return a classifier with a random last layer, the same for every size of tile."""
    config = RESNET18.model_copy(update={"head": head, "freeze": freeze})
    model = build_classifier(config.model_copy(update={"tile": tile}), 0).eval()
    model.last.load_state_dict(build_classifier(config.model_copy(update={"tile": 0}), 0).last.state_dict())
    return model


def test_training_starts_from_all_tiles_alike() -> None:
    model = build_classifier(RESNET18.model_copy(update={"tile": 32}), 0)
    maps = torch.randn(1, 512, 4, 3, requires_grad=True)
    model.logits(maps).backward()
    assert model.last.weight.grad is not None
    assert torch.allclose(model.last.weight.grad.flatten(), maps.mean((0, 2, 3)), atol=1e-5)


def test_the_score_is_a_smooth_maximum_over_the_tiles() -> None:
    model = built(64)
    maps = torch.randn(2, 512, 4, 3)
    tiles = [maps[:, :, y : y + 2, x : x + 2].mean((2, 3)) for y in range(3) for x in range(2)]
    expected = torch.stack([model.logits(tile) for tile in tiles]).exp().mean(0).log()
    assert torch.allclose(model.logits(maps), expected, atol=1e-5)


def test_a_tile_far_above_the_others_gives_the_score_and_infinite_logits_do_not_occur() -> None:
    model = built(32)
    maps = torch.zeros(1, 512, 2, 2)
    maps[:, :, 0, 0] = 1000 * model.last.weight.sign()
    with torch.no_grad():
        highest, score = float(model.logits(maps[:, :, 0, 0])), float(model.logits(maps))
    assert highest > 1000
    assert score == pytest.approx(highest - np.log(4), rel=1e-5)


@pytest.mark.parametrize("tile", [128, 4096])
def test_a_tile_of_the_whole_image_gives_the_same_score_as_no_tiles(tile: int) -> None:
    assert predict(built(tile), PIXELS) == pytest.approx(predict(built(0), PIXELS), abs=1e-5)


def test_a_local_change_counts_in_full_however_large_the_image_is() -> None:
    maps = torch.zeros(1, 512, 16, 16)
    maps[:, :, 0, 0] = 100 * built(32).last.weight.sign()
    with torch.no_grad():
        tiled = built(32).logits(maps) - built(32).logits(maps * 0)
        averaged = built(0).logits(maps.mean((2, 3))) - built(0).logits(torch.zeros(1, 512))
    assert float(averaged) > 0
    assert float(tiled) == pytest.approx(256 * float(averaged), rel=1e-2)


@pytest.mark.parametrize("head", ["image", "mask"])
def test_inputs_of_a_frozen_backbone_predict_as_the_whole_model(head: Head) -> None:
    model = built(64, head, "all")
    assert predictor(model, PIXELS)() == pytest.approx(predict(model, PIXELS), abs=1e-5)


def test_training_and_file_keep_the_tiles(tmp_path: Path) -> None:
    model = built(64, freeze="all")
    before = model.last.weight.clone()
    fit(model, PIXELS, LABELS, FitConfig(epochs=1, batch_size=4), seed=0)
    assert not torch.equal(model.last.weight, before)
    save_classifier(model, tmp_path / "model.safetensors")
    loaded = load_classifier(tmp_path / "model.safetensors")
    assert loaded.tile == 64
    assert predict(loaded, PIXELS) == pytest.approx(predict(model, PIXELS), abs=1e-5)


def test_of_older_files_only_those_without_tiles_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_classifier(built(0), path)
    tensors = load_file(path)
    write_tensors(path, tensors, {"backbone": "resnet18", "head": "image", "tile": "0"})
    assert load_classifier(path).tile == 0
    write_tensors(path, tensors, {"backbone": "resnet18", "head": "image", "tile": "64"})
    with pytest.raises(InputError, match="maximum over its tiles as score; train it again"):
        load_classifier(path)


@pytest.mark.slow
def test_an_exported_model_gives_the_logits_of_pytorch(tmp_path: Path) -> None:
    model = built(64, "mask").requires_grad_(False)
    assert write_onnx(model, 0.0, PIXELS[:2], tmp_path / "model.onnx", {}) < 1e-4
    logit, *_ = run_onnx(open_onnx(tmp_path / "model.onnx"), PIXELS)
    assert logit == pytest.approx(predict(model, PIXELS), abs=1e-4)


@pytest.mark.parametrize("tile", [16, 48])
def test_a_tile_that_is_no_multiple_of_a_cell_is_refused(tile: int) -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        BackboneConfig(tile=tile)


def test_grad_cam_explains_the_worst_tiles() -> None:
    tiles, whole = built(32), built(0)
    for model in (tiles, whole):
        torch.nn.init.normal_(model.last.weight, std=100, generator=torch.Generator().manual_seed(0))
    assert np.abs(heat_maps(tiles, PIXELS) - heat_maps(whole, PIXELS)).max() > 0.1
