from pathlib import Path

import numpy as np
import pytest
import torch

from inandout.classifier import distance_head
from inandout.classifier.backbone import DefectNet, build_classifier, load_classifier, save_classifier
from inandout.classifier.config import BackboneConfig, DetectorConfig, Head
from inandout.classifier.distance_head import Addition, DistanceHead
from inandout.classifier.heatmap import heat_maps
from inandout.classifier.nearest import build_memory, fit_addition, patch_distances, worst
from inandout.classifier.training import predict
from inandout.errors import InputError
from tests.conftest import draw

GOOD = np.stack([draw(i, False)[0] for i in range(6)])
PIXELS = np.stack([draw(i, i > 52)[0] for i in range(50, 56)])


def classifier(head: Head = "image", tile: int = 0, addition: Addition | None = None) -> DefectNet:
    """A small classifier; with `addition`, distances to `GOOD` are added."""
    config = BackboneConfig(backbone="mobilenet_v2", freeze="all", head=head, tile=tile)
    model = build_classifier(config, 0).eval().requires_grad_(False)
    if addition:
        model.distance_head = DistanceHead(build_memory(model, GOOD, 30, seed=0))
        model.distance_head.addition.copy_(torch.tensor(addition))
    return model


@pytest.mark.parametrize(("head", "tile"), [("image", 0), ("image", 32), ("mask", 0), ("mask", 32)])
def test_the_distance_of_the_worst_patch_is_added_to_the_logit(head: Head, tile: int) -> None:
    alone, together = classifier(head, tile), classifier(head, tile, Addition(3.0, 0.5))
    distances = worst(patch_distances(alone, build_memory(alone, GOOD, 30, seed=0), PIXELS))
    assert np.ptp(distances) > 0
    np.testing.assert_allclose(predict(together, PIXELS), predict(alone, PIXELS) + 3 * (distances - 0.5), atol=1e-5)


def test_a_memory_is_compared_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    memory = build_memory(model, GOOD, 30, seed=0)
    at_once = patch_distances(model, memory, PIXELS)
    monkeypatch.setattr(distance_head, "_CHUNK", 7)
    np.testing.assert_allclose(patch_distances(model, memory, PIXELS), at_once, atol=1e-6)


def test_logits_and_distances_of_good_parts_get_the_same_spread() -> None:
    rng = np.random.default_rng(0)
    logits, distances = rng.normal(-4, 2, 50), rng.normal(7, 0.1, 50)
    scale, offset = fit_addition(logits, distances)
    added = scale * (distances - offset)
    assert added.std() == pytest.approx(logits.std())
    assert added.mean() == pytest.approx(0, abs=1e-9)


def test_a_detector_without_spread_does_not_decide() -> None:
    varied, equal = np.array([1.0, 2.0, 4.0]), np.array([3.0, 3.0, 3.0])
    assert fit_addition(varied, equal).scale == 0
    assert fit_addition(equal, varied).scale == pytest.approx(1 / varied.std())


def test_rounding_is_no_spread() -> None:
    nearly = np.array([7.0, 7.0, 7.0000005])
    assert fit_addition(np.array([1.0, 2.0, 4.0]), nearly).scale == 0
    assert fit_addition(nearly, np.array([1.0, 2.0, 4.0])).scale == pytest.approx(1 / np.std([1.0, 2.0, 4.0]))


def test_the_nearest_patch_is_found_in_every_chunk_and_its_distance_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    memory = 100 + torch.randn(600, 128, generator=generator)
    fine = 100 + torch.randn(2, 32, 4, 4, generator=generator)
    coarse = 100 + torch.randn(2, 96, 2, 2, generator=generator)
    rows = distance_head.patch_features(fine, coarse).permute(0, 2, 3, 1).double()
    expected = torch.cdist(rows.flatten(0, 2), memory.double(), compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    found = DistanceHead(memory)(fine, coarse)
    assert found.shape == (2, 4, 4)
    np.testing.assert_allclose(found.flatten(), expected, rtol=1e-4)


def test_the_score_does_not_depend_on_the_precision() -> None:
    model = classifier(addition=Addition(3.0, 0.5))
    np.testing.assert_array_equal(predict(model, PIXELS, precision="bf16"), predict(model, PIXELS))


def test_any_number_of_images_is_exported() -> None:
    model = classifier("mask", 32, Addition(3.0, 0.5))
    images = torch.from_numpy(PIXELS.transpose(0, 3, 1, 2).copy())
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    for count in (1, 2, 5):
        assert torch.allclose(program.module()(images[:count]), model(images[:count]), atol=1e-5)


def test_a_saved_classifier_keeps_its_distances(tmp_path: Path) -> None:
    model = classifier("mask", 32, Addition(3.0, 0.5))
    save_classifier(model, tmp_path / "c.safetensors")
    np.testing.assert_array_equal(predict(load_classifier(tmp_path / "c.safetensors"), PIXELS), predict(model, PIXELS))


@pytest.mark.parametrize("memory", [torch.zeros(3, 7), torch.zeros(0, 128), torch.zeros(128)])
def test_a_memory_of_another_network_raises_an_error(memory: torch.Tensor, tmp_path: Path) -> None:
    model = classifier()
    model.distance_head = DistanceHead(memory)
    save_classifier(model, tmp_path / "c.safetensors")
    with pytest.raises(InputError, match=r"distance_head\.memory has shape .*, not \(1 or more, 128\)"):
        load_classifier(tmp_path / "c.safetensors")


def test_a_classifier_with_distances_starts_another_network(tmp_path: Path) -> None:
    save_classifier(classifier("mask", 0, Addition()), tmp_path / "c.safetensors")
    started = build_classifier(BackboneConfig(backbone="mobilenet_v2", weights=str(tmp_path / "c.safetensors")), 0)
    assert started.distance_head is None


def test_the_heat_map_shows_the_distance_of_each_patch() -> None:
    image, mask = draw(50, True)
    model = classifier(addition=Addition(1.0, 0.0))
    large = image.repeat(2, 0).repeat(2, 1)[None]
    (heat,) = heat_maps(model, large)
    distances = patch_distances(model, model.distance_head.memory, large)[0]
    assert (heat.min(), heat.max()) == (0, pytest.approx(1))
    assert distances.argmax() == heat[4::8, 4::8].argmax()
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    rows, columns = np.nonzero(mask)
    assert abs(y / 2 - rows.mean()) < 9
    assert abs(x / 2 - columns.mean()) < 9


@pytest.mark.parametrize("freeze", ["none", "norm"])
def test_distances_need_a_frozen_backbone(freeze: str) -> None:
    with pytest.raises(ValueError, match=f"distances = True .* freeze is {freeze}; give freeze=all"):
        DetectorConfig(freeze=freeze, distances=True)
