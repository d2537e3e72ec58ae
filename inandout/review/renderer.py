"""Image generation for the prompt lab with a base model and an adapter merged at any alpha."""

from collections.abc import Iterator

from inandout.data.images import ImageArray
from inandout.diffusion.base.base import Base
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.pipeline import Pipeline
from inandout.diffusion.prompts import check_prompt
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.guidance import Composition
from inandout.diffusion.sample.sampler import image_seed, sample
from inandout.hardware import Hardware
from inandout.review.prompt_lab import GenerationRequest

_BATCH = 4
"""Images per batch; small batches show the first images early."""


class Renderer:
    """Generates the images of requests; the last merged model is cached, because most requests only change prompts."""

    def __init__(
        self,
        base: Base,
        adapter: Adapter,
        width: int,
        height: int,
        sampling: SamplingConfig,
        composition: Composition | None = None,
        hardware: Hardware | None = None,
    ):
        """Generate images of one size.

        Args:
            base: the base model.
            adapter: of this base.
            width: in px.
            height: in px.
            sampling: values for everything that requests do not set.
            composition: see `sample`.
            hardware: see `merge`.
        """
        self._composition, self._hardware = composition, hardware
        self._base, self._adapter, self._size, self._sampling = base, adapter, (width, height), sampling
        self._merged: tuple[float, Pipeline] | None = None

    def draw(self, request: GenerationRequest) -> Iterator[tuple[int, ImageArray]]:
        """Yield (prompt index, image) pairs, alternating between prompts.

        Image n of a prompt with seed s equals image n of `augment` with the same single prompt and seed.

        Raises:
            InputError: a prompt is too long for the base.
        """
        for prompt_text in (*request.prompts, request.negative_prompt):
            check_prompt(self._base.pipeline.tokenizer, prompt_text)
        changes = {"negative_prompt": request.negative_prompt, "guidance": request.guidance, "sample_batch": _BATCH}
        order = [(prompt, number) for number in range(request.number) for prompt in range(len(request.prompts))]
        batches = sample(
            self._merge(request.alpha), [request.prompts[prompt] for prompt, _ in order],
            [image_seed(request.seed, number) for _, number in order], width=self._size[0], height=self._size[1],
            config=self._sampling.model_copy(update=changes), clip_skip=self._adapter.meta.clip_skip,
            composition=self._composition,
        )  # fmt: skip
        images = (image for batch in batches for image in batch.images)
        for (prompt, _), image in zip(order, images, strict=True):
            yield prompt, image

    def _merge(self, alpha: float) -> Pipeline:
        if self._merged is None or self._merged[0] != alpha:
            self._merged = None  # free the old model before the next one needs memory
            self._merged = (
                alpha,
                merge(self._base.pipeline, self._base.fingerprint, self._adapter, alpha, self._hardware),
            )
        return self._merged[1]
