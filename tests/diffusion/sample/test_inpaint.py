import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from inandout.data.colour import is_grey
from inandout.data.surfaces import draw_surface
from inandout.diffusion.base.inpainting import is_inpainting
from inandout.diffusion.sample.generate import grey_generator, inpaint_generator
from inandout.diffusion.sample.inpaint import MIN_VISIBLE_CHANGE, Canvas, composite, encode_canvas, find_fault
from inandout.diffusion.sample.sampler import SamplingConfig, sample
from inandout.errors import InputError
from tests.diffusion.tiny import inpainting_pipeline, tiny_pipeline

WIDTH, HEIGHT = 32, 48


def canvas(count: int = 3, width: int = WIDTH, height: int = HEIGHT) -> Canvas:
    """Surfaces with a block to be drawn, elsewhere on each."""
    masks = np.zeros((count, height, width), bool)
    for i in range(count):
        masks[i, 4 + 3 * i : 20 + 3 * i, 5 : 17 + i] = True
    return Canvas(np.stack([draw_surface(width, height, seed).image for seed in range(count)]), masks)


def draw(pipeline: StableDiffusionPipeline, on: Canvas, **changes: object) -> np.ndarray:
    config = SamplingConfig(**{"steps": 4, "guidance": 2, **changes}).resolved("embedded")
    height, width = on.masks.shape[1:]
    prompts, seeds = ["background cracked"] * len(on.masks), range(len(on.masks))
    made = sample(pipeline, prompts, list(seeds), width=width, height=height, config=config, canvas=on)
    return np.concatenate([batch.images for batch in made])


@pytest.mark.parametrize("solver", ["dpm++", "ddim"])
@pytest.mark.parametrize("generator", [tiny_pipeline, inpainting_pipeline])
def test_pixels_outside_the_mask_stay_and_those_inside_change(generator: type, solver: str) -> None:
    on = canvas()
    drawn = draw(generator(), on, scheduler=solver)
    assert np.array_equal(drawn[~on.masks], on.images[~on.masks])
    for image, before, mask in zip(drawn, on.images, on.masks, strict=True):
        assert np.abs(image[mask].astype(int) - before[mask]).mean() > MIN_VISIBLE_CHANGE


def test_a_image_does_not_depend_on_its_batch() -> None:
    on, pipeline = canvas(), tiny_pipeline()
    together, alone = draw(pipeline, on, sample_batch=3), draw(pipeline, on, sample_batch=1)
    assert np.abs(together.astype(int) - alone).max() <= 1


def test_sides_that_are_no_multiple_of_the_patch_are_kept() -> None:
    on = canvas(2, 33, 51)
    drawn = draw(tiny_pipeline(), on)
    assert drawn.shape == on.images.shape
    assert np.array_equal(drawn[~on.masks], on.images[~on.masks])


def test_without_noise_the_latents_outside_are_those_of_the_canvas() -> None:
    pipeline, on = tiny_pipeline(), canvas(1)
    noise = torch.randn(1, pipeline.unet.config.out_channels, HEIGHT // 2, WIDTH // 2)
    held = encode_canvas(pipeline, on, noise)
    kept = held.keep(torch.zeros_like(noise), None, pipeline.scheduler)
    outside = held.mask.expand_as(kept) == 0
    assert torch.equal(kept[outside], held.latents[outside])
    assert (kept[~outside] == 0).all()
    assert held.mask.sum() == on.masks.sum() / 4 + 8, "a latent is drawn if any of its four pixels is"


def test_a_base_made_for_inpainting_is_told_from_others_and_needs_a_canvas() -> None:
    pipeline = inpainting_pipeline()
    assert is_inpainting(pipeline)
    assert not is_inpainting(tiny_pipeline())
    with pytest.raises(InputError, match="made for inpainting"):
        sample(pipeline, ["background"], [0], width=32, height=32, config=SamplingConfig().resolved("embedded"))


def test_the_base_made_for_inpainting_sees_what_is_around_the_mask() -> None:
    on, pipeline = canvas(1), inpainting_pipeline()
    other = on._replace(images=255 - on.images)
    inside = [draw(pipeline, one)[on.masks].astype(int) for one in (on, other)]
    assert np.abs(inside[0] - inside[1]).mean() > 1


@pytest.mark.parametrize("masks", [np.zeros((1, HEIGHT, WIDTH), bool), np.ones((1, HEIGHT, WIDTH + 2), bool)])
def test_an_empty_or_misfitting_mask_is_refused(masks: np.ndarray) -> None:
    with pytest.raises(InputError, match="mask"):
        draw(tiny_pipeline(), canvas(1)._replace(masks=masks))


def test_a_mask_of_one_pixel_is_drawn_in_full_and_edges_are_soft() -> None:
    masks = np.zeros((2, 24, 24), bool)
    masks[0, 5, 7] = True
    masks[1, 4:20, 4:20] = True
    on = Canvas(np.zeros((2, 24, 24, 3), np.uint8), masks)
    pasted = composite(on, np.full((2, 24, 24, 3), 200, np.uint8))
    assert pasted[0, 5, 7].tolist() == [200] * 3
    assert pasted[1, 12, 12, 0] == 200
    assert 0 < pasted[1, 4, 12, 0] < 150
    assert pasted[~masks].sum() == 0


def test_a_part_without_colour_gets_a_defect_without_colour() -> None:
    masks = np.ones((2, 8, 8), bool)
    images = np.full((2, 8, 8, 3), 90, np.uint8)
    images[1, ..., 0] = 91
    drawn = np.tile(np.array([200, 100, 0], np.uint8), (2, 8, 8, 1))
    grey, coloured = composite(Canvas(images, masks), drawn)
    assert is_grey(grey)
    assert not is_grey(coloured)
    made = list(grey_generator(lambda numbers: [(drawn[0], "flat") for _ in numbers])(range(2)))
    assert [(is_grey(image), fault) for image, fault in made] == [(True, "flat")] * 2


def test_what_cannot_be_seen_is_a_fault() -> None:
    on = canvas(1)
    image, mask = on.images[0], on.masks[0]
    seen = image.copy()
    seen[mask] = 255 - seen[mask]
    assert find_fault(image, True, image, mask) == "unchanged"
    assert find_fault(seen, True, image, mask) is None
    assert find_fault(seen, False, image, mask) == "non-finite"


def test_candidates_are_drawn_on_the_canvases_of_their_numbers() -> None:
    on, asked = canvas(4), []

    def canvas_of(numbers: range) -> Canvas:
        asked.append(numbers)
        return on.part(numbers.start, numbers.stop)

    config = SamplingConfig(steps=2, guidance=2).resolved("embedded")
    generator = inpaint_generator(tiny_pipeline(), ["background cracked"], 0, canvas_of, config, 1)
    made = list(generator(range(2, 4)))
    assert asked == [range(2, 4)]
    for (image, fault), before, mask in zip(made, on.images[2:], on.masks[2:], strict=True):
        assert fault is None
        assert np.array_equal(image[~mask], before[~mask])
