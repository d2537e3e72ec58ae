import numpy as np
import pytest
import torch

from inandout.classifier import nearest
from inandout.classifier.backbone import build_classifier
from inandout.classifier.config import Backbone, BackboneConfig
from inandout.classifier.nearest import build_memory, greedy_coreset, patch_distances
from tests.conftest import draw


def test_a_coreset_takes_the_farthest_point_next() -> None:
    points = torch.tensor([[0.0], [0.1], [1.0], [5.0]])
    chosen = greedy_coreset(points, 3, torch.Generator().manual_seed(0)).tolist()
    rest = [i for i in range(4) if i != chosen[0]]
    assert chosen[1] == max(rest, key=lambda i: abs(float(points[i] - points[chosen[0]])))
    assert len(set(greedy_coreset(points, 9, torch.Generator()).tolist())) == 4, "never a point twice"


def test_a_coreset_keeps_a_rare_patch() -> None:
    patches = torch.cat([torch.randn(500, 200) * 0.1, torch.ones(1, 200)])
    assert 500 in greedy_coreset(patches, 5, torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "efficientnet_b0"])
def test_a_defect_is_far_from_good_parts_where_it_lies(backbone: Backbone) -> None:
    model = build_classifier(BackboneConfig(backbone=backbone, freeze="all"), 0)
    good = np.stack([draw(i, False)[0].repeat(2, 0).repeat(2, 1) for i in range(6)])
    image, mask = draw(50, True)
    tests = np.stack([draw(51, False)[0], image]).repeat(2, 1).repeat(2, 2)
    memory = build_memory(model, good, 50, seed=0)
    distances = patch_distances(model, memory, tests)
    assert distances.shape == (2, 8, 8)
    assert distances[1].max() > distances[0].max()
    y, x = np.unravel_index(distances[1].argmax(), (8, 8))
    rows, columns = np.nonzero(mask)
    assert abs(y * 4 + 2 - rows.mean()) < 9
    assert abs(x * 4 + 2 - columns.mean()) < 9


def test_the_memory_is_bounded_seeded_and_contains_its_own_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_classifier(BackboneConfig(backbone="resnet18", freeze="all"), 0)
    good = np.stack([draw(i, False)[0] for i in range(4)])
    assert len(build_memory(model, good, 7, seed=0)) == 7
    assert torch.equal(build_memory(model, good, 7, seed=1), build_memory(model, good, 7, seed=1))
    everything = build_memory(model, good, 10_000, seed=0)
    assert len(everything) == 4 * 4 * 4
    assert patch_distances(model, everything, good).max() == pytest.approx(0, abs=1e-2)
    monkeypatch.setattr(nearest, "CANDIDATES", 8)
    assert len(build_memory(model, good, 10_000, seed=0)) == 8
    assert patch_distances(model, everything, good[:0]).shape[0] == 0
