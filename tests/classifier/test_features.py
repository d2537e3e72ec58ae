import numpy as np
import pytest
import torch

from inandout.classifier.backbone import build_classifier
from inandout.classifier.config import BackboneConfig
from inandout.classifier.features import features
from inandout.classifier.training import predict

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 40, 32, 3), dtype=np.uint8)


def test_the_last_layer_maps_features_to_logits() -> None:
    model = build_classifier(BackboneConfig(), 0).eval()
    actual = features(model, PIXELS, batch_size=2)
    assert (actual.shape, actual.dtype) == ((5, 2048), np.dtype(np.float32))
    with torch.no_grad():
        logits = model.last(torch.from_numpy(actual)).flatten().numpy()
    assert logits == pytest.approx(predict(model, PIXELS), abs=1e-5)


def test_the_model_is_unchanged() -> None:
    model = build_classifier(BackboneConfig(), 0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = features(model, PIXELS)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert np.array_equal(first, features(model, PIXELS)), "batch statistics would change in training mode"


def test_no_images_give_an_empty_array() -> None:
    assert features(build_classifier(BackboneConfig(), 0), PIXELS[:0]).shape == (0, 2048)
