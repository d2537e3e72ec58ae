import numpy as np

from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.drawn_masks import draw_masks, find_difference
from inandout.diffusion.sample.guidance import Composition
from tests.diffusion.tiny import tiny_pipeline


def test_a_mask_covers_the_difference_and_a_margin() -> None:
    without = np.full((2, 64, 96, 3), 90, np.uint8)
    with_defect = without.copy()
    with_defect[0, 20:30, 40:60, 1] = 200
    with_defect[0, 50:52, 5:8] += 10  # weak beside the defect
    with_defect[1, 50:52, 5:8] += 10  # the strongest difference of its image
    first, second = find_difference(with_defect, without)
    assert first[20:30, 40:60].all()
    assert not first[:16].any() and not first[34:].any() and not first[:, :36].any() and not first[:, 64:].any()
    assert second[50:52, 5:8].all() and not second[:40].any()


def test_margins_grow_with_the_image() -> None:
    def share(side: int) -> float:
        without = np.zeros((1, side, side, 3), np.uint8)
        with_defect = without.copy()
        with_defect[0, side // 4 : side // 2, side // 4 : side // 2] = 100
        return float(find_difference(with_defect, without).mean())

    assert abs(share(64) - share(256)) < 0.01


def test_equal_images_give_the_whole_image() -> None:
    images = np.zeros((1, 16, 16, 3), np.uint8)
    assert find_difference(images, images).all()


def test_the_same_seed_draws_the_same_masks() -> None:
    base, config = tiny_pipeline(), SamplingConfig(steps=2, guidance=2).resolved("embedded")
    composition = Composition(base, "skt background", "background")

    def draw(seeds: list[int]) -> np.ndarray:
        prompts = ["skt background cracked"] * 2
        return draw_masks(base, composition, prompts, seeds, width=32, height=32, config=config)

    masks = draw([3, 4])
    assert masks.shape == (2, 32, 32) and masks.any(axis=(1, 2)).all()
    assert np.array_equal(masks, draw([3, 4]))
    assert not np.array_equal(masks, draw([5, 6]))
