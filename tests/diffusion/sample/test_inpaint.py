import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from inandout.data.colour import is_grey
from inandout.data.surfaces import draw_surface
from inandout.diffusion.pipeline import is_inpainting
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.generate import grey_generator, inpaint_generator
from inandout.diffusion.sample.inpaint import Canvas, composite, encode_canvas, find_fault
from inandout.diffusion.sample.sampler import sample
from inandout.diffusion.sample.visible_change import MIN_VISIBLE_CHANGE
from inandout.errors import InputError
from tests.diffusion.tiny import inpainting_pipeline, tiny_pipeline

WIDTH, HEIGHT = 32, 48


def canvas(count: int = 3, width: int = WIDTH, height: int = HEIGHT) -> Canvas:
    """Surfaces with one rectangle to draw, in another place on each."""
    masks = np.zeros((count, height, width), bool)
    for i in range(count):
        masks[i, 4 + 3 * i : 20 + 3 * i, 5 : 17 + i] = True
    return Canvas(np.stack([draw_surface(width, height, seed).image for seed in range(count)]), masks)


def draw(pipeline: StableDiffusionPipeline, target: Canvas, **changes: object) -> np.ndarray:
    config = SamplingConfig(**{"steps": 4, "guidance": 2, **changes}).resolved("embedded")
    height, width = target.masks.shape[1:]
    prompts, seeds = ["background cracked"] * len(target.masks), range(len(target.masks))
    results = sample(pipeline, prompts, list(seeds), width=width, height=height, config=config, canvas=target)
    return np.concatenate([batch.images for batch in results])


@pytest.mark.parametrize("solver", ["dpm++", "ddim"])
@pytest.mark.parametrize("generator", [tiny_pipeline, inpainting_pipeline])
def test_pixels_change_inside_the_mask_alone(generator: type, solver: str) -> None:
    target = canvas()
    drawn = draw(generator(), target, scheduler=solver)
    assert np.array_equal(drawn[~target.masks], target.images[~target.masks])
    for image, before, mask in zip(drawn, target.images, target.masks, strict=True):
        assert np.abs(image[mask].astype(int) - before[mask]).mean() > MIN_VISIBLE_CHANGE


def test_an_image_does_not_depend_on_its_batch() -> None:
    target, pipeline = canvas(), tiny_pipeline()
    together, alone = draw(pipeline, target, sample_batch=3), draw(pipeline, target, sample_batch=1)
    assert np.abs(together.astype(int) - alone).max() <= 1


def test_sizes_that_are_no_multiple_of_the_patch_are_kept() -> None:
    target = canvas(2, 33, 51)
    drawn = draw(tiny_pipeline(), target)
    assert drawn.shape == target.images.shape
    assert np.array_equal(drawn[~target.masks], target.images[~target.masks])


def test_without_noise_latents_outside_the_mask_are_the_canvas() -> None:
    pipeline, target = tiny_pipeline(), canvas(1)
    noise = torch.randn(1, pipeline.unet.config.out_channels, HEIGHT // 2, WIDTH // 2)
    encoded = encode_canvas(pipeline, target, noise)
    blended = encoded.blend(torch.zeros_like(noise), None, pipeline.scheduler)
    outside = encoded.mask.expand_as(blended) == 0
    assert torch.equal(blended[outside], encoded.latents[outside])
    assert (blended[~outside] == 0).all()
    assert encoded.mask.sum() == target.masks.sum() / 4 + 8, "a latent is masked if any of its four pixels is"


def test_an_inpainting_base_is_detected_and_draws_whole_images_on_a_masked_grey_canvas() -> None:
    pipeline = inpainting_pipeline()
    assert is_inpainting(pipeline)
    assert not is_inpainting(tiny_pipeline())
    config = SamplingConfig(steps=2).resolved("embedded")
    (whole,) = sample(pipeline, ["background"], [0], width=32, height=32, config=config)
    grey = Canvas(np.full((1, 32, 32, 3), 128, np.uint8), np.ones((1, 32, 32), np.bool_))
    grey.images[0, 0, 0, 0] = 255  # on a canvas without colour, the result has none
    (inside,) = sample(pipeline, ["background"], [0], width=32, height=32, config=config, canvas=grey)
    middle = np.s_[:, 12:20, 12:20]  # a pasted image has soft edges
    assert np.array_equal(whole.images[middle], inside.images[middle])
    assert whole.images.std() > 5


def test_an_inpainting_base_reads_the_surroundings_of_the_mask() -> None:
    target, pipeline = canvas(1), inpainting_pipeline()
    other = target._replace(images=255 - target.images)
    inside = [draw(pipeline, one)[target.masks].astype(int) for one in (target, other)]
    assert np.abs(inside[0] - inside[1]).mean() > 1


@pytest.mark.parametrize("masks", [np.zeros((1, HEIGHT, WIDTH), bool), np.ones((1, HEIGHT, WIDTH + 2), bool)])
def test_an_empty_or_misfitting_mask_is_rejected(masks: np.ndarray) -> None:
    with pytest.raises(InputError, match="mask"):
        draw(tiny_pipeline(), canvas(1)._replace(masks=masks))


def test_a_one_pixel_mask_has_full_opacity_and_edges_are_soft() -> None:
    masks = np.zeros((2, 24, 24), bool)
    masks[0, 5, 7] = True
    masks[1, 4:20, 4:20] = True
    target = Canvas(np.zeros((2, 24, 24, 3), np.uint8), masks)
    result = composite(target, np.full((2, 24, 24, 3), 200, np.uint8))
    assert result[0, 5, 7].tolist() == [200] * 3
    assert result[1, 12, 12, 0] == 200
    assert 0 < result[1, 4, 12, 0] < 150
    assert result[~masks].sum() == 0


def test_a_grey_part_gets_a_grey_defect() -> None:
    masks = np.ones((2, 8, 8), bool)
    images = np.full((2, 8, 8, 3), 90, np.uint8)
    images[1, ..., 0] = 91
    drawn = np.tile(np.array([200, 100, 0], np.uint8), (2, 8, 8, 1))
    grey, coloured = composite(Canvas(images, masks), drawn)
    assert is_grey(grey)
    assert not is_grey(coloured)
    results = list(grey_generator(lambda numbers: [(drawn[0], "flat") for _ in numbers])(range(2)))
    assert [(is_grey(image), fault) for image, fault in results] == [(True, "flat")] * 2


def test_an_invisible_change_is_a_fault() -> None:
    target = canvas(1)
    image, mask = target.images[0], target.masks[0]
    changed = image.copy()
    changed[mask] = 255 - changed[mask]
    assert find_fault(image, True, image, mask) == "unchanged"
    assert find_fault(changed, True, image, mask) is None
    assert find_fault(changed, False, image, mask) == "non-finite"


def test_candidates_are_inpainted_on_the_canvases_of_their_numbers() -> None:
    target, requested = canvas(4), []

    def canvas_of(numbers: range) -> Canvas:
        requested.append(numbers)
        return target.part(numbers.start, numbers.stop)

    config = SamplingConfig(steps=2, guidance=2).resolved("embedded")
    generator = inpaint_generator(tiny_pipeline(), ["background cracked"], 0, canvas_of, config, 1)
    results = list(generator(range(2, 4)))
    assert requested == [range(2, 4)]
    for (image, fault), before, mask in zip(results, target.images[2:], target.masks[2:], strict=True):
        assert fault is None
        assert np.array_equal(image[~mask], before[~mask])
