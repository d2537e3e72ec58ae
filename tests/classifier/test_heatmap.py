import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from inandout.classifier.backbone import DefectNet, build_classifier
from inandout.classifier.config import BackboneConfig
from inandout.classifier.heatmap import DILATION, heat_maps, pointing
from inandout.classifier.training import predict


@pytest.fixture(scope="module", params=["resnet50", "mobilenet_v2"])
def model(request: pytest.FixtureRequest) -> DefectNet:
    """Random weights with non-zero residual branches."""
    net = build_classifier(BackboneConfig(backbone=request.param), 3).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.network.state_dict().items():
        if name.endswith("bn3.weight"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator))
    net.last.weight.abs_()  # for positive contributions to the logit
    return net


def images(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, 96, 64, 3), dtype=np.uint8)


def reference_map(model: DefectNet, image: np.ndarray) -> np.ndarray:
    """Compute Grad-CAM of one image with hooks, channel by channel."""
    outputs = {}
    names = {"resnet50": ("layer3", "layer4"), "mobilenet_v2": ("features.13", "features.18")}[model.backbone]
    layers = {name: model.network.get_submodule(name) for name in names}
    hooks = [
        layer.register_forward_hook(lambda m, i, o, n=name: outputs.update({n: o})) for name, layer in layers.items()
    ]
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float().requires_grad_()
    logit = model(x)[0]
    for hook in hooks:
        hook.remove()
    maps = []
    for name in layers:
        (gradient,) = torch.autograd.grad(logit, outputs[name], retain_graph=True)
        cam = torch.zeros(outputs[name].shape[2:])
        for channel in range(gradient.shape[1]):
            cam += gradient[0, channel].mean() * outputs[name][0, channel].detach()
        cam = interpolate(cam.clamp(min=0)[None, None], image.shape[:2], mode="bilinear")[0, 0]
        assert cam.max() > 0
        maps.append(cam / cam.max())
    mean = (maps[0] + maps[1]) / 2
    return (mean / mean.max()).numpy()


def test_maps_equal_a_reference_grad_cam(model: DefectNet) -> None:
    pixels = images(3)
    maps = heat_maps(model, pixels, batch_size=2)
    assert maps.shape == (3, 96, 64)
    assert maps.dtype == np.float32
    assert np.ptp(maps, axis=(1, 2)).min() > 0.3, "flat maps would make the comparison meaningless"
    for heat, image in zip(maps, pixels, strict=True):
        np.testing.assert_allclose(heat, reference_map(model, image), atol=1e-4)


def test_the_model_is_unchanged(model: DefectNet) -> None:
    before = predict(model, images(2))
    heat_maps(model, images(2))
    np.testing.assert_array_equal(predict(model, images(2)), before)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_map_without_contributions_is_zero(model: DefectNet) -> None:
    zero_head = build_classifier(BackboneConfig(), 0).eval().requires_grad_(False)
    zero_head.last.weight.zero_()
    np.testing.assert_array_equal(heat_maps(zero_head, images(1)), 0)
    assert heat_maps(zero_head, images(0)).shape == (0, 96, 64)


def test_a_maximum_inside_the_dilated_mask_is_a_hit() -> None:
    mask = np.zeros((40, 40), bool)
    mask[10, 10] = True
    maps = np.zeros((4, 40, 40), np.float32)
    maps[0, 10, 10] = maps[1, 10, 10 + DILATION] = maps[2, 10, 11 + DILATION] = 1
    result = pointing(maps, [mask] * 4)
    assert (result.images, result.hits, result.energy) == (4, 0.5, 0.25), (
        "inside, within the dilation, outside, all zeros"
    )
    assert result.chance == pytest.approx((2 * DILATION + 1) ** 2 / 1600)
    assert "50% of 4 images (chance: 5%)" in result.sentence()


def test_a_map_of_zeros_is_a_miss_even_if_the_first_pixel_is_a_defect() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = True
    assert pointing(np.zeros((1, 8, 8), np.float32), [mask]).hits == 0
