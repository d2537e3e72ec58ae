"""What draws in the prompt room: a base, an adapter, and any alpha between."""

from collections.abc import Iterator

from diffusers import StableDiffusionPipeline

from inandout.data.images import Picture
from inandout.diffusion.base.base import Base
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.prompts import check_prompt
from inandout.diffusion.sample.sampler import SamplingConfig, picture_seed, sample
from inandout.review.prompt_lab import Wish

_AT_ONCE = 4
"""Pictures a batch, so that the first are soon to be seen."""


class Painter:
    """Draws wishes; the last merged model is kept, as most tries change the words alone."""

    def __init__(self, base: Base, adapter: Adapter, width: int, height: int, how: SamplingConfig):
        """Draw pictures of one size; `how` is resolved, and wishes replace what they name."""
        self._base, self._adapter, self._size, self._how = base, adapter, (width, height), how
        self._merged: tuple[float, StableDiffusionPipeline] | None = None

    def draw(self, wish: Wish) -> Iterator[tuple[int, Picture]]:
        """Pictures of a wish, the prompts in turn; number n of seed s is what `augment` makes of a single prompt.

        Raises:
            InputError: a prompt is too long for the base.
        """
        for words in (*wish.prompts, wish.negative_prompt):
            check_prompt(self._base.pipeline.tokenizer, words)
        changes = {"negative_prompt": wish.negative_prompt, "guidance": wish.guidance, "sample_batch": _AT_ONCE}
        places = [(prompt, number) for number in range(wish.number) for prompt in range(len(wish.prompts))]
        batches = sample(
            self._merge(wish.alpha), [wish.prompts[prompt] for prompt, _ in places],
            [picture_seed(wish.seed, number) for _, number in places], width=self._size[0], height=self._size[1],
            config=self._how.model_copy(update=changes), clip_skip=self._adapter.meta.clip_skip,
        )  # fmt: skip
        pictures = (picture for batch in batches for picture in batch.pictures)
        for (place, _), picture in zip(places, pictures, strict=True):
            yield place, picture

    def _merge(self, alpha: float) -> StableDiffusionPipeline:
        if self._merged is None or self._merged[0] != alpha:
            self._merged = None  # before the next, so that two never need memory at once
            self._merged = alpha, merge(self._base.pipeline, self._base.fingerprint, self._adapter, alpha)
        return self._merged[1]
