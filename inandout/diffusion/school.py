"""An endless stream of surfaces and captions to learn from: batch `step` is a function of the seed and of `step`."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inandout.data.surfaces import KINDS, SURFACES, Surface, draw_surface
from inandout.diffusion.captions import PRODUCT_WORDS, caption_of
from inandout.diffusion.fidelity import Pictures

CLOSE_UP, WHOLE = (32, 32), (64, 64)
"""(Width, height) of a part of a picture that shows some of the defect, and of the picture it is cut from. A defect is
small: in the time for one picture, four close-ups teach far more of what its name means. But they show one in every
part of a picture, so that whole ones must have the last word."""

SHAPES: dict[tuple[int, int], float] = {
    WHOLE: 0.72, (96, 96): 0.08, (64, 192): 0.08, (64, 128): 0.06, (128, 128): 0.06,
}  # fmt: skip
"""(Width, height) of the pictures of a batch to its share of those that are no close-ups; a batch of larger pictures
has fewer of them."""

PLAIN = 0.25
"""Share of pictures without a defect."""

LESSONS = (*KINDS, *["cracked"] * 2, "pitted", *["stained"] * 7)
"""Kinds that a base is taught: those that it takes for others, more often than those."""

PRODUCT_SHARE = 0.35
"""Share of images that show one of the products of `PRODUCT_WORDS`, whose caption begins with the product's word."""

_FIRST_PRODUCT = 2**40
"""Seed of the first of those products; users draw data sets of products from 0 to 2**32 - 1."""

_AGAIN = 0.7
"""Chance that a faint defect is drawn again: it teaches little, as even a person often misses it."""


class Batch(NamedTuple):
    """Pictures of one size, and their captions."""

    pictures: Pictures
    masks: npt.NDArray[np.bool_]
    """(N, H, W): where there is a defect."""
    captions: list[str]
    defects: list[str]
    """Kind of each, "" for none."""


class Drawn(NamedTuple):
    """One image."""

    surface: Surface
    product: int | None
    """Place in `PRODUCT_WORDS` of the product that it shows; None = another product."""


@dataclass(frozen=True)
class School:
    """Draws batches for ever; two of different seeds share no picture (of the first 2**30 of each)."""

    seed: int
    """0..2**20 - 1. Seeds from `HELD_OUT` on are for measuring, never for training."""
    batch_size: int = 32
    """Pictures of 64x64 px in a batch."""
    close_ups: float = 0.5
    """Share of the batches that are close-ups."""
    kinds: tuple[str, ...] = KINDS
    """Each as often as it stands here."""

    def batch(self, step: int, shape: tuple[int, int] | None = None) -> Batch:
        """Batch number `step`, 0 or more, of pictures of `shape` (width, height), or of a drawn shape."""
        drawn, rng = self.draw(step, shape)
        surfaces = [one.surface for one in drawn]
        pictures, masks = np.stack([one.picture for one in surfaces]), np.stack([one.mask for one in surfaces])
        captions = [caption_of(one.surface, rng, one.product) for one in drawn]
        return Batch(pictures, masks, captions, [one.defect for one in surfaces])

    def draw(self, step: int, shape: tuple[int, int] | None = None) -> tuple[list[Drawn], np.random.Generator]:
        """The images of batch `step`, and the generator that draws their captions."""
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
    """A part of a surface, of the size `CLOSE_UP`, with some pixel of its defect in it, if it has one."""
    height, width = drawn.mask.shape
    rows, columns = np.nonzero(drawn.mask if drawn.mask.any() else np.ones_like(drawn.mask))
    chosen = rng.integers(len(rows))
    left = int(np.clip(columns[chosen] - rng.integers(CLOSE_UP[0]), 0, width - CLOSE_UP[0]))
    top = int(np.clip(rows[chosen] - rng.integers(CLOSE_UP[1]), 0, height - CLOSE_UP[1]))
    part = np.s_[top : top + CLOSE_UP[1], left : left + CLOSE_UP[0]]
    return replace(drawn, picture=drawn.picture[part], mask=drawn.mask[part])


_MOST = WHOLE[0] * WHOLE[1] // (CLOSE_UP[0] * CLOSE_UP[1])
"""Pictures of a batch, at most, for each of 64x64."""

HELD_OUT = 2**19
"""First seed of schools that nothing is trained on."""
