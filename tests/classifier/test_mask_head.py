from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from inandout.classifier.backbone import DefectNet, build_classifier, load_classifier, save_classifier
from inandout.classifier.config import Backbone, BackboneConfig, FitConfig, Freeze
from inandout.classifier.head_combination import choose_combination, fit_combination, score_heads
from inandout.classifier.heatmap import heat_maps, mask_maps, pointing
from inandout.classifier.mask_head import Combination, MaskHead, enlarge, map_scores, mask_loss
from inandout.classifier.mask_targets import Targets, to_targets
from inandout.classifier.onnx_file import largest_difference
from inandout.classifier.training import fit, predict, predictor
from inandout.data.surfaces.drawing import draw_surface
from inandout.errors import InputError
from tests.conftest import draw

LABELS = np.array([0] * 6 + [1] * 4)
DRAWN = [draw(i, bool(label)) for i, label in enumerate(LABELS)]
PIXELS = np.stack([image for image, _ in DRAWN])
TARGETS: Targets = np.stack([mask.reshape(4, 8, 4, 8).mean((1, 3), dtype=np.float32) for _, mask in DRAWN])
RESNET18 = BackboneConfig(backbone="resnet18", head="mask")


def trained(freeze: Freeze, checkpoint: Path | None = None, epochs: int = 2) -> DefectNet:
    model = build_classifier(RESNET18.model_copy(update={"freeze": freeze}), 0)
    fit(
        model, PIXELS, LABELS, FitConfig(epochs=epochs, batch_size=4, lr=0.01), seed=0, masks=TARGETS,
        checkpoint=checkpoint,
    )  # fmt: skip
    return model


@pytest.mark.parametrize("backbone", get_args(Backbone))
def test_the_head_gives_a_map_at_an_eighth_and_is_small(backbone: Backbone) -> None:
    model = build_classifier(BackboneConfig(backbone=backbone, head="mask"), 0).eval()
    images = torch.randint(0, 256, (2, 3, 100, 68), dtype=torch.uint8)
    logit, cells = model.heads(*model.head_inputs(images))
    assert cells is not None
    assert cells.shape == (2, 13, 9)
    assert model(images).shape == logit.shape == (2,)
    assert model.mask_head is not None
    assert sum(each.numel() for each in model.mask_head.parameters()) < 300_000


def test_the_mask_head_leaves_the_other_weights_and_the_image_logit_unchanged() -> None:
    image = build_classifier(BackboneConfig(backbone="resnet18"), 4).eval()
    mask = build_classifier(RESNET18, 4).eval()
    assert all(torch.equal(value, mask.state_dict()[name]) for name, value in image.state_dict().items())
    assert np.allclose(score_heads(mask, PIXELS)[0], predict(image, PIXELS), atol=1e-6)


def test_a_frozen_backbone_trains_the_image_head_as_without_masks() -> None:
    image = build_classifier(BackboneConfig(backbone="resnet18", freeze="all"), 0)
    fit(image, PIXELS, LABELS, FitConfig(epochs=2, batch_size=4, lr=0.01), seed=0)
    assert torch.allclose(trained("all").last.weight, image.last.weight)


def test_a_resumed_training_is_exact(tmp_path: Path) -> None:
    expected = trained("all").state_dict()
    trained("all", tmp_path / "checkpoint.safetensors", epochs=1)
    resumed = trained("all", tmp_path / "checkpoint.safetensors").state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())


def test_inputs_computed_once_predict_as_the_whole_model() -> None:
    model = trained("all")
    assert predictor(model, PIXELS)() == pytest.approx(predict(model, PIXELS), abs=1e-5)


def test_unknown_masks_have_no_influence_on_the_loss() -> None:
    cells = torch.randn(3, 4, 4, requires_grad=True)
    targets = torch.zeros(3, 4, 4)
    targets[0, 1, 1] = 1
    known = mask_loss(cells[:2], targets[:2])
    targets[2] = torch.nan
    loss = mask_loss(cells, targets)
    assert torch.isclose(loss, known)
    (gradient,) = torch.autograd.grad(loss, cells)
    assert not gradient[2].any()
    assert gradient[:2].all()
    assert mask_loss(cells[2:], targets[2:]) == 0


def test_the_loss_falls_as_the_map_approaches_the_mask() -> None:
    targets = torch.zeros(2, 4, 4)
    targets[0, 1, 1] = 1
    good = 16 * targets - 8
    assert mask_loss(good, targets) < 0.1 < mask_loss(torch.zeros(2, 4, 4), targets) < mask_loss(-good, targets)


def test_targets_are_the_share_of_a_cell_and_unknown_without_a_mask() -> None:
    mask = np.zeros((32, 40), bool)
    mask[8:12, 16:24] = True
    targets = to_targets([mask, np.zeros_like(mask), None], 32, 40)
    assert targets.shape == (3, 4, 5)
    assert targets[0, 1, 2] == targets[0].sum() == 0.5
    assert not targets[1].any()
    assert np.isnan(targets[2]).all()


def test_a_defect_of_one_pixel_is_in_the_targets_of_an_odd_size() -> None:
    mask = np.zeros((100, 68), bool)
    mask[99, 67] = True
    (target,) = to_targets([mask], 100, 68)
    assert target.shape == (13, 9)
    assert target[12, 8] > 0


def test_a_saved_classifier_keeps_head_and_combination(tmp_path: Path) -> None:
    model = build_classifier(RESNET18, 3).eval()
    fit_combination(model, PIXELS, LABELS)
    save_classifier(model, tmp_path / "c.safetensors")
    loaded = load_classifier(tmp_path / "c.safetensors")
    assert np.array_equal(predict(loaded, PIXELS), predict(model, PIXELS))
    assert np.array_equal(heat_maps(loaded, PIXELS), heat_maps(model, PIXELS))
    start = BackboneConfig(backbone="resnet18", weights=str(tmp_path / "c.safetensors"))
    again = build_classifier(start, 0)
    assert torch.equal(again.network.layer1[0].conv1.weight, model.network.layer1[0].conv1.weight)


def test_the_combination_scales_maps_to_the_image_logits_of_negatives() -> None:
    rng = np.random.default_rng(0)
    image, maps = rng.normal(2, 3, 200), rng.normal(-8, 0.5, 200)
    weight, scale, offset = choose_combination(image, maps, np.zeros(200, np.int64))
    assert weight == 0.5, "no positives to choose by"
    scaled = offset + scale * maps
    assert (scaled.mean(), scaled.std()) == pytest.approx((image.mean(), image.std()))


@pytest.mark.parametrize("best", [0, 1])
def test_the_weight_is_chosen_by_validation(best: int) -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 100)
    scores = [rng.normal(0, 1, 200), rng.normal(0, 1, 200)]
    scores[best] += 3 * labels
    weight, scale, offset = choose_combination(scores[0], scores[1], labels)
    assert weight in ((0.0, 0.25), (0.75, 1.0))[best]
    combined = (1 - weight) * scores[0] + weight * (offset + scale * scores[1])
    assert average_precision_score(labels, combined) >= average_precision_score(labels, scores[best])


def test_without_different_negatives_the_logits_are_averaged() -> None:
    for labels in (np.array([], np.int64), np.array([1, 1]), np.array([0, 1])):
        found = choose_combination(np.arange(len(labels), dtype=float), np.arange(len(labels), dtype=float), labels)
        assert found == Combination()


def test_the_model_applies_the_combination() -> None:
    model = build_classifier(RESNET18, 3).eval()
    head = model.mask_head
    assert isinstance(head, MaskHead)
    image, maps = score_heads(model, PIXELS)
    head.combination.copy_(torch.tensor(Combination(0.25, 2.0, 5.0)))
    assert predict(model, PIXELS) == pytest.approx(0.75 * image + 0.25 * (5 + 2 * maps), abs=1e-5)


def test_heat_maps_are_the_probabilities_of_the_map_at_the_size_of_the_image() -> None:
    model = build_classifier(RESNET18, 3).eval().requires_grad_(False)
    cells = model.heads(*model.head_inputs(torch.from_numpy(PIXELS).permute(0, 3, 1, 2))).cells
    assert cells is not None
    maps = heat_maps(model, PIXELS, batch_size=4)
    assert maps.shape == (10, 32, 32)
    assert np.allclose(maps, enlarge(cells, 32, 32).sigmoid(), atol=1e-5)
    assert np.allclose(1 / (1 + np.exp(-np.stack(list(mask_maps(model, PIXELS))))), maps, atol=1e-5)
    assert torch.equal(map_scores(cells), cells.amax((1, 2)))


def test_a_different_onnx_map_raises_an_error() -> None:
    with pytest.raises(InputError, match="in a value of a heat map, more than"):
        largest_difference(np.zeros((1, 2, 2)), np.full((1, 2, 2), 2e-4), "value of a heat map")


def test_the_map_learns_to_point_at_defects_of_procedural_surfaces() -> None:
    drawn = [draw_surface(64, 64, i, "pitted" if i % 2 else "", "brushed", 1) for i in range(72)]
    pixels, masks = np.stack([each.image for each in drawn]), np.stack([each.mask for each in drawn])
    targets: Targets = masks.reshape(-1, 8, 8, 8, 8).mean((2, 4), dtype=np.float32)
    model = build_classifier(RESNET18.model_copy(update={"freeze": "all"}), 0)
    train, test = slice(0, 40), [i for i in range(40, 72) if i % 2 and masks[i].any()]
    labels = np.arange(40) % 2
    fit(model, pixels[train], labels, FitConfig(epochs=20), seed=0, masks=targets[train])
    found = pointing(heat_maps(model.eval(), pixels[test]), [masks[i] for i in test])
    assert found.hits > 2 * found.chance + 0.2
