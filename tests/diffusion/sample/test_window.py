import numpy as np
import pytest

from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.generate import inpaint_generator
from inandout.diffusion.sample.inpaint import Canvas
from inandout.diffusion.sample.window import (
    Window,
    cut,
    cut_mask,
    enlarge,
    find_window,
    inset,
    own_size,
    paste,
    place_mask,
    random_window,
    window_around,
)
from inandout.errors import InputError
from tests.diffusion.tiny import inpainting_pipeline, tiny_pipeline

HEIGHT, WIDTH = 48, 96


def mask_of(window: Window) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[window.top : window.bottom, window.left : window.right] = True
    return mask


@pytest.mark.parametrize(
    ("defect", "padding", "expected"),
    [
        (Window(40, 20, 48, 24), 0, Window(40, 20, 48, 24)),  # has the aspect ratio of the image
        (Window(40, 20, 48, 24), 2, Window(36, 18, 52, 26)),
        (Window(40, 20, 42, 24), 0, Window(37, 20, 45, 24)),
        (Window(0, 44, 8, 48), 4, Window(0, 36, 24, 48)),  # at the edge
        (Window(0, 0, 96, 48), 9, Window(0, 0, 96, 48)),
    ],
)
def test_a_window_encloses_the_mask_with_the_aspect_ratio_of_the_image(
    defect: Window, padding: int, expected: Window
) -> None:
    assert find_window(mask_of(defect), padding) == expected


def test_an_enlarged_window_is_pasted_back() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    masks = np.stack([mask_of(Window(40, 20, 52, 26)), mask_of(Window(2, 2, 90, 40))])
    canvas = Canvas(images, masks)
    windows = [find_window(mask, 2) for mask in masks]
    large = enlarge(canvas, windows, (WIDTH, HEIGHT))
    assert large.images.shape == images.shape
    assert large.masks[0].mean() > 10 * masks[0].mean()
    red = np.full_like(images, 0) + np.array([255, 0, 0], np.uint8)
    pasted = paste(canvas, windows, red)
    assert np.array_equal(pasted[~masks], images[~masks])
    assert np.array_equal(pasted[0, 23, 46], [255, 0, 0])


@pytest.mark.parametrize("changes", [{"mask_crop": 2}, {"strength": 0.5}])
def test_the_generator_keeps_pixels_outside_the_mask_and_draws_other_images(changes: dict[str, float]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    masks = np.zeros((2, 32, 32), np.bool_)
    masks[:, 10:18, 12:20] = True
    drawn = []
    for config in (SamplingConfig(steps=4), SamplingConfig.model_validate({"steps": 4} | changes)):
        generator = inpaint_generator(
            inpainting_pipeline(), ["background"], 0, lambda numbers: Canvas(images, masks),
            config.resolved("embedded"), 1,
        )  # fmt: skip
        drawn.append(np.stack([image for image, _ in generator(range(2))]))
    assert np.array_equal(drawn[1][~masks], images[~masks])
    assert not np.array_equal(drawn[0][masks], drawn[1][masks])


def test_a_low_strength_keeps_the_canvas() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    masks = np.ones((1, 32, 32), np.bool_)
    change = []
    for strength in (0.1, 0.9):
        config = SamplingConfig(steps=10, strength=strength, scheduler="ddim").resolved("embedded")
        generator = inpaint_generator(
            inpainting_pipeline(), ["background"], 0, lambda numbers: Canvas(image, masks), config, 1
        )
        (drawn, _), *_ = generator(range(1))
        change.append(float(np.abs(drawn.astype(int) - image[0]).mean()))
    assert change[0] < change[1]


def test_a_square_is_around_the_mask_and_in_the_image() -> None:
    mask = np.zeros((40, 100), np.bool_)
    mask[20:22, 50:60] = True
    assert window_around(mask, 16) == Window(46, 12, 62, 28)
    mask[:] = False
    mask[0, 99] = True
    assert window_around(mask, 16) == Window(84, 0, 100, 16)
    assert window_around(mask, 64) == Window(60, 0, 100, 40)


def bar(length: int) -> np.ndarray:
    mask = np.zeros((80, 100), np.bool_)
    mask[30:34, 10 : 10 + length] = True
    return mask


def ring() -> np.ndarray:
    rows, columns = np.mgrid[:80, :100]
    return np.abs(np.hypot(rows - 40, columns - 55) - 28) < 2


def corner() -> np.ndarray:
    mask = np.zeros((80, 100), np.bool_)
    mask[10:13, 20:75] = mask[10:65, 20:23] = True
    return mask


@pytest.mark.parametrize("mask", [bar(15), bar(40), bar(41), bar(67), ring(), corner()])
def test_a_large_defect_fits_into_its_square_with_a_margin(mask: np.ndarray) -> None:
    window = window_around(mask, 16)
    assert 16 <= window.size()[0] == window.size()[1] <= 80
    assert inset(mask, window)[mask].all()


def test_a_square_is_on_the_mask_even_if_the_centre_is_not() -> None:
    mask = np.zeros((100, 100), np.bool_)
    mask[10:14, 10:14] = mask[80:84, 80:84] = True
    window = window_around(mask, 24)
    assert window.size() == (24, 24), "scattered defects do not grow the square"
    assert mask[window.slices()].sum() == 16


def test_random_squares_are_on_the_foreground_and_reach_every_corner() -> None:
    rng, foreground = np.random.default_rng(0), np.zeros((32, 48), np.bool_)
    foreground[:, :8] = True
    on_object = [random_window((32, 48), 8, foreground, rng) for _ in range(200)]
    assert {window.left for window in on_object} <= set(range(5))
    anywhere = [random_window((32, 48), 8, None, rng) for _ in range(500)]
    assert {window.left for window in anywhere} >= {0, 40} and {window.top for window in anywhere} >= {0, 24}
    assert random_window((32, 48), 8, np.zeros((32, 48), np.bool_), rng) == Window(20, 12, 28, 20)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_a_square_drawn_at_another_size_changes_pixels_of_its_mask_alone(side: int) -> None:
    image, window = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8), Window(30, 20, 62, 52)
    small = np.zeros((side, side), np.bool_)
    small[side // 4 : side // 2, side // 4 : side // 2] = True
    mask = place_mask(small, window, (60, 80))
    assert mask.sum() == 8 * 8 and mask[28:36, 38:46].all()
    assert np.array_equal(cut_mask(mask, window, (side, side)), small)
    drawn = 255 - cut(image, window, (side, side))
    (pasted,) = paste(Canvas(image[None], mask[None]), [window], drawn[None])
    assert np.array_equal(pasted[~mask], image[~mask])
    assert (pasted[mask] != image[mask]).any()
    if side == 32:
        assert np.array_equal(pasted[mask], 255 - image[mask])


def test_the_own_size_of_a_base_is_that_of_its_training() -> None:
    pipeline = tiny_pipeline()
    assert own_size(pipeline) == 64
    pipeline.unet.register_to_config(sample_size=None)
    with pytest.raises(InputError, match="sample_size = None"):
        own_size(pipeline)


def test_a_mask_keeps_away_from_edges_where_the_image_goes_on() -> None:
    mask = np.zeros((64, 96), bool)
    mask[0:32, 40:72] = True
    inner = inset(mask, Window(40, 0, 72, 32))
    assert inner[:30, 42:70].all()
    assert inner.sum() == 30 * 28, "no margin at the upper edge of the image"
    assert np.array_equal(inset(mask, Window(0, 0, 96, 64)), mask), "the window is the image"


def test_a_mask_at_an_inner_edge_only_is_unchanged() -> None:
    mask = np.zeros((64, 64), bool)
    mask[31, 8:12] = True
    assert np.array_equal(inset(mask, Window(0, 0, 32, 32)), mask)
