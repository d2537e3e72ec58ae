"""Properties of synthetic anomalies over images and configurations."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from scipy.stats import kstest, uniform

from inandout.data.images import ImageArray, write_image
from inandout.errors import InputError
from inandout.memseg.anomaly import MIN_CHANGE, Anomaly, blend, synthesise
from inandout.memseg.config import MaskConfig, MemSegConfig
from inandout.memseg.texture_bank import ProceduralTextures, open_textures

BANK = ProceduralTextures(count=3)


def _noisy(height: int, width: int) -> ImageArray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _uniform(level: int) -> ImageArray:
    return np.full((48, 64, 3), level, np.uint8)


def _object() -> ImageArray:
    """Draw a bright disc on black."""
    y, x = np.mgrid[0:80, 0:80]
    disc = (x - 40) ** 2 + (y - 40) ** 2 < 900
    return np.where(disc[:, :, None], np.uint8(180), np.uint8(10)) * np.ones(3, np.uint8)


IMAGES = {
    "noisy": _noisy(64, 64),
    "tall": _noisy(150, 50),
    "odd": _noisy(33, 17),
    "line": _noisy(1, 90),
    "black": _uniform(0),
    "grey": _uniform(128),
    "white": _uniform(255),
    "object": _object(),
}
CONFIGS = {
    "default": MemSegConfig(),
    "structure": MemSegConfig(texture_share=0),
    "texture": MemSegConfig(texture_share=1),
    "small": MemSegConfig(mask=MaskConfig(min_area=0.02, max_area=0.04)),
    "large": MemSegConfig(mask=MaskConfig(min_area=0.6, max_area=0.9)),
    "faint": MemSegConfig(opacity_min=0.05, opacity_max=0.05),
}


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest) -> ImageArray:
    return IMAGES[request.param]


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> MemSegConfig:
    return CONFIGS[request.param]


def _area_fits(area: float, config: MemSegConfig) -> bool:
    return config.mask.min_area - 1e-9 <= area <= config.mask.max_area + 1e-9


def test_an_anomaly_is_visible_inside_its_mask_only(image: ImageArray, config: MemSegConfig) -> None:
    before = image.copy()
    for seed in range(12):
        changed, mask = synthesise(image, seed, config, BANK)
        assert changed.dtype == np.uint8
        assert changed.shape == image.shape
        assert mask.dtype == np.bool_
        assert mask.shape == image.shape[:2]
        assert mask.any()
        assert _area_fits(mask.mean(), config)
        np.testing.assert_array_equal(changed[~mask], image[~mask])
        change = np.abs(changed[mask].astype(int) - image[mask]).max(axis=1)
        assert change.mean() >= MIN_CHANGE
    np.testing.assert_array_equal(image, before)


def test_anomalies_do_not_depend_on_the_order_of_calls(image: ImageArray, config: MemSegConfig) -> None:
    forward = [synthesise(image, seed, config, BANK) for seed in range(4)]
    backward = [synthesise(image, seed, config, BANK) for seed in reversed(range(4))]
    for first, second in zip(forward, reversed(backward), strict=True):
        _assert_equal(first, second)
    assert len({anomaly.image.tobytes() for anomaly in forward}) == 4


def test_another_process_gives_the_same_anomaly() -> None:
    jobs = [(IMAGES["tall"], seed, MemSegConfig(), BANK) for seed in range(4)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(synthesise, *job) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            _assert_equal(synthesise(*job), future.result())


def _assert_equal(first: Anomaly, second: Anomaly) -> None:
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.mask, second.mask)


@pytest.mark.parametrize(("side", "bright"), [("brighter", True), ("darker", False)])
def test_anomalies_stay_on_the_object(side: Literal["brighter", "darker"], bright: bool) -> None:
    config = MemSegConfig(mask=MaskConfig(foreground_threshold=100, foreground_is=side))
    image = IMAGES["object"]
    foreground = (image[:, :, 0] > 100) == bright
    for seed in range(30):
        mask = synthesise(image, seed, config, BANK).mask
        assert not (mask & ~foreground).any()
        assert _area_fits(mask.sum() / foreground.sum(), config)


@pytest.mark.parametrize(
    ("level", "changes", "numbers"),
    [
        (0, {"foreground_threshold": 100}, "covers 0 pixels"),
        (200, {"min_area": 0.00001, "max_area": 0.0001}, "covers 3072 pixels.*max_area = 0.0001"),
    ],
)
def test_an_object_too_small_for_the_limits_raises_an_error(level: int, changes: dict[str, Any], numbers: str) -> None:
    with pytest.raises(InputError, match=numbers):
        synthesise(_uniform(level), 0, MemSegConfig(mask=MaskConfig(**changes)), BANK)


@pytest.mark.parametrize("opacity", [0.15, 0.5, 1.0])
def test_opacity_is_the_weight_of_the_source(opacity: float) -> None:
    old, new = np.array([[0, 100, 255]], np.uint8), np.array([[255, 0, 255]], np.uint8)
    expected = np.rint(opacity * np.array([255.0, 0, 255]) + (1 - opacity) * np.array([0.0, 100, 255]))
    np.testing.assert_allclose(blend(old, new, opacity), [expected], atol=1)
    np.testing.assert_array_equal(blend(old, new, 1.0), new)


@pytest.mark.parametrize(("minimum", "maximum"), [(0.15, 1.0), (0.2, 0.6)])
def test_opacity_is_uniform_within_its_limits(tmp_path: Path, minimum: float, maximum: float) -> None:
    """With a white texture on black, the level inside the mask is the opacity. MemSeg's limits are the defaults."""
    write_image(tmp_path / "white.png", np.full((4, 4, 3), 255, np.uint8))
    limits = {} if (minimum, maximum) == (0.15, 1.0) else {"opacity_min": minimum, "opacity_max": maximum}
    config = MemSegConfig.model_validate({"texture_share": 1, "textures": str(tmp_path)} | limits)
    bank = open_textures(config.textures)
    levels = []
    for seed in range(400):
        changed, mask = synthesise(_uniform(0), seed, config, bank)
        assert np.ptp(changed[mask]) == 0
        levels.append(changed[mask][0, 0] / 255)
    assert minimum - 0.002 <= min(levels) < minimum + 0.02
    assert maximum - 0.02 < max(levels) <= maximum + 0.002
    assert kstest(levels, uniform(minimum, maximum - minimum).cdf).pvalue > 0.01


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 100), (1.0, 200)])
def test_texture_share_is_the_share_of_texture_anomalies(share: float, expected: int) -> None:
    """On a black and white image only the texture is green, because no operation produces that colour."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :16] = 255
    bank = _OneColour((0, 255, 0))
    config = MemSegConfig(texture_share=share, keep_grey=False, opacity_min=1)
    green = 0
    for seed in range(200):
        changed, mask = synthesise(image, seed, config, bank)
        green += bool((changed[mask] == (0, 255, 0)).all())
    assert abs(green - expected) <= 30 * (0 < share < 1)


class _OneColour:
    def __init__(self, colour: tuple[int, int, int]) -> None:
        self._image = Image.new("RGB", (4, 4), colour)

    def __len__(self) -> int:
        return 1

    def texture(self, index: int) -> Image.Image:
        return self._image


@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_a_texture_equal_to_the_image_still_gives_a_visible_anomaly(level: int) -> None:
    config = MemSegConfig(texture_share=1, opacity_min=0.05, opacity_max=0.05)
    changed, mask = synthesise(_uniform(level), 0, config, _OneColour((level, level, level)))
    assert (changed[mask] != level).all()


def test_a_grey_image_gets_a_grey_anomaly() -> None:
    grey = np.repeat(IMAGES["noisy"][:, :, :1], 3, axis=2)
    for seed in range(20):
        changed, _ = synthesise(grey, seed, MemSegConfig(), BANK)
        assert (np.ptp(changed, axis=2) == 0).all()
    coloured = [synthesise(grey, seed, MemSegConfig(keep_grey=False), BANK).image for seed in range(20)]
    assert any(np.ptp(anomaly, axis=2).any() for anomaly in coloured)


def test_masks_do_not_depend_on_the_textures() -> None:
    for seed in range(5):
        first = synthesise(IMAGES["tall"], seed, MemSegConfig(), BANK)
        second = synthesise(IMAGES["tall"], seed, MemSegConfig(texture_share=1), _OneColour((1, 2, 3)))
        np.testing.assert_array_equal(first.mask, second.mask)


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_an_invalid_array_raises_an_error(array: Any) -> None:
    with pytest.raises(InputError, match=r"\(H, W, 3\) uint8"):
        synthesise(array, 0, MemSegConfig(), BANK)


def test_a_negative_seed_raises_an_error() -> None:
    with pytest.raises(InputError, match="seed = -1"):
        synthesise(IMAGES["noisy"], -1, MemSegConfig(), BANK)
