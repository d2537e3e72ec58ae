"""An endless stream of surfaces and captions for training: batch `step` is a function of the seed and `step`."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inandout.data.images import ImageBatch
from inandout.data.surfaces import KINDS, SURFACES, Surface, draw_surface
from inandout.diffusion.pretrain.captions import PRODUCT_WORDS, caption_of

CLOSE_UP, WHOLE = (32, 32), (64, 64)
"""(Width, height) of a crop that contains part of the defect, and of the image it is cropped from. Defects are small:
in the time of one image, four close-ups teach much more about the name of a defect. But they show a defect in every
place of an image, so training must end with whole images."""

SHAPES: dict[tuple[int, int], float] = {
    WHOLE: 0.72, (96, 96): 0.08, (64, 192): 0.08, (64, 128): 0.06, (128, 128): 0.06,
}  # fmt: skip
"""(Width, height) of the images of a batch to its share of the batches that are not close-ups. Batches of larger images
have fewer images."""

PLAIN = 0.25
"""Share of images without a defect."""

WEIGHTED_KINDS = (*KINDS, *["cracked"] * 2, "pitted", *["stained"] * 7)
"""Kinds of defects to train on; those that the base confused with others are repeated."""

PRODUCT_SHARE = 0.35
"""Share of images that show one of the products of `PRODUCT_WORDS`, whose caption begins with the product's word."""

_FIRST_PRODUCT = 2**40
"""Seed of the first of those products; users draw data sets of products from 0 to 2**32 - 1."""

_AGAIN = 0.7
"""Probability of redrawing a faint defect: faint defects teach little, because even people often miss them."""


class Batch(NamedTuple):
    """Images of one size, and their captions."""

    images: ImageBatch
    masks: npt.NDArray[np.bool_]
    """(N, H, W): where a defect is."""
    captions: list[str]
    defects: list[str]
    """Kind of each defect, "" for none."""


class Drawn(NamedTuple):
    """One image."""

    surface: Surface
    product: int | None
    """Place in `PRODUCT_WORDS` of the product that it shows; None = another product."""


@dataclass(frozen=True)
class SurfaceStream:
    """An endless stream of batches; streams of different seeds share none of the first 2**30 images of each."""

    seed: int
    """0..2**20 - 1. Seeds from `HELD_OUT` on are for evaluation, never for training."""
    batch_size: int = 32
    """Number of images of 64x64 px in a batch."""
    close_ups: float = 0.5
    """Share of batches that are close-ups."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of defects, drawn as often as they are listed."""

    def batch(self, step: int, shape: tuple[int, int] | None = None) -> Batch:
        """Return batch number `step`, 0 or more, of images of `shape` (width, height), or of a random shape."""
        drawn, rng = self.draw(step, shape)
        surfaces = [example.surface for example in drawn]
        images = np.stack([surface.image for surface in surfaces])
        masks = np.stack([surface.mask for surface in surfaces])
        captions = [caption_of(example.surface, rng, example.product) for example in drawn]
        return Batch(images, masks, captions, [surface.defect for surface in surfaces])

    def draw(self, step: int, shape: tuple[int, int] | None = None) -> tuple[list[Drawn], np.random.Generator]:
        """Return the images of batch `step` and the generator that draws their captions."""
        rng = np.random.default_rng([self.seed, step])
        width, height = shape or self._shape(rng)
        count = max(self.batch_size * 64 * 64 // (width * height), 1)
        return [self._draw(width, height, step * _MOST * self.batch_size + i, rng) for i in range(count)], rng

    def _shape(self, rng: np.random.Generator) -> tuple[int, int]:
        shares = {CLOSE_UP: self.close_ups} | {shape: (1 - self.close_ups) * share for shape, share in SHAPES.items()}
        return list(shares)[rng.choice(len(shares), p=list(shares.values()))]

    def _draw(self, width: int, height: int, number: int, rng: np.random.Generator) -> Drawn:
        if (width, height) == CLOSE_UP:
            whole = self._draw(*WHOLE, number, rng)
            return whole._replace(surface=close_up(whole.surface, rng))
        defect = "" if rng.random() < PLAIN else str(rng.choice(self.kinds))
        product = int(rng.integers(len(PRODUCT_WORDS))) if rng.random() < PRODUCT_SHARE else None
        style = (None, None) if product is None else (SURFACES[product % len(SURFACES)], _FIRST_PRODUCT + product)
        first = (self.seed << 33) + 2 * number
        drawn = draw_surface(width, height, first, defect, *style)
        if drawn.contrast == "faint" and rng.random() < _AGAIN:
            drawn = draw_surface(width, height, first + 1, defect, *style)
        return Drawn(drawn, product)


def close_up(drawn: Surface, rng: np.random.Generator) -> Surface:
    """Return a random crop of size `CLOSE_UP` that contains at least one pixel of the defect, if there is one."""
    height, width = drawn.mask.shape
    rows, columns = np.nonzero(drawn.mask if drawn.mask.any() else np.ones_like(drawn.mask))
    chosen = rng.integers(len(rows))
    left = int(np.clip(columns[chosen] - rng.integers(CLOSE_UP[0]), 0, width - CLOSE_UP[0]))
    top = int(np.clip(rows[chosen] - rng.integers(CLOSE_UP[1]), 0, height - CLOSE_UP[1]))
    part = np.s_[top : top + CLOSE_UP[1], left : left + CLOSE_UP[0]]
    return replace(drawn, image=drawn.image[part], mask=drawn.mask[part])


_MOST = WHOLE[0] * WHOLE[1] // (CLOSE_UP[0] * CLOSE_UP[1])
"""Maximum number of images in a batch per image of 64x64 px."""
