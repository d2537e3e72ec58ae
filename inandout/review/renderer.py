"""What draws in the prompt lab: a base, an adapter, and any alpha between."""

from collections.abc import Iterator

from diffusers import StableDiffusionPipeline

from inandout.data.images import ImageArray
from inandout.diffusion.base.base import Base
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.prompts import check_prompt
from inandout.diffusion.sample.sampler import SamplingConfig, image_seed, sample
from inandout.review.prompt_lab import GenerationRequest

_BATCH = 4
"""Images a batch, so that the first are soon to be seen."""


class Renderer:
    """Draws wishes; the last merged model is kept, as most tries change the words alone."""

    def __init__(self, base: Base, adapter: Adapter, width: int, height: int, sampling: SamplingConfig):
        """Draw images of one size; `sampling` is resolved, and wishes replace what they name."""
        self._base, self._adapter, self._size, self._sampling = base, adapter, (width, height), sampling
        self._merged: tuple[float, StableDiffusionPipeline] | None = None

    def draw(self, request: GenerationRequest) -> Iterator[tuple[int, ImageArray]]:
        """Images of a wish, the prompts in turn; number n of seed s is what `augment` makes of a single prompt.

        Raises:
            InputError: a prompt is too long for the base.
        """
        for words in (*request.prompts, request.negative_prompt):
            check_prompt(self._base.pipeline.tokenizer, words)
        changes = {"negative_prompt": request.negative_prompt, "guidance": request.guidance, "sample_batch": _BATCH}
        places = [(prompt, number) for number in range(request.number) for prompt in range(len(request.prompts))]
        batches = sample(
            self._merge(request.alpha), [request.prompts[prompt] for prompt, _ in places],
            [image_seed(request.seed, number) for _, number in places], width=self._size[0], height=self._size[1],
            config=self._sampling.model_copy(update=changes), clip_skip=self._adapter.meta.clip_skip,
        )  # fmt: skip
        images = (image for batch in batches for image in batch.images)
        for (place, _), image in zip(places, images, strict=True):
            yield place, image

    def _merge(self, alpha: float) -> StableDiffusionPipeline:
        if self._merged is None or self._merged[0] != alpha:
            self._merged = None  # before the next, so that two never need memory at once
            self._merged = alpha, merge(self._base.pipeline, self._base.fingerprint, self._adapter, alpha)
        return self._merged[1]
