"""Guidance: combine the predictions of one or two models for each denoising step.

Plain guidance (classifier-free, Ho 2022) follows one model away from its negative prompt. Composed guidance (after Liu
2022, "Compositional Visual Generation with Composable Diffusion Models") takes the product from the fine-tuned model
and the direction of the defect from the base, which has not forgotten any defect:

    e_merged("skt background") + scale * (e_base("background cracked") - e_base("background"))
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from inandout.diffusion.pipeline import Pipeline, weight_type
from inandout.diffusion.prompts import Conditioning, check_prompt, encode_prompts, join

Predict: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Model input (N, C, h, w) and timestep to the prediction (N, C, h, w) in fp32."""
Guidance: TypeAlias = Callable[[Sequence[str]], Predict]
"""Prompts of a batch to its predictions."""


class Composition(NamedTuple):
    """The base beside the fine-tuned model, and the prompts that relate them."""

    base: Pipeline
    instance_prompt: str
    """Prompt of the fine-tuned model for the product, e.g. "skt background"."""
    class_prompt: str
    """Prompt of the base for the class of the product, e.g. "background"."""

    def base_prompt(self, prompt: str) -> str:
        """Return a prompt with the class prompt in place of the instance prompt, which the base does not know."""
        return prompt.replace(self.instance_prompt, self.class_prompt)


def plain_guidance(
    pipeline: Pipeline, prompts: Iterable[str], negative_prompt: str, scale: float, clip_skip: int
) -> Guidance:
    """Return classifier-free guidance: two model calls per step, one if the scale is 1.

    Raises:
        InputError: a prompt is too long, or `clip_skip` is out of range.
    """
    encoded = _encode(pipeline, [negative_prompt, *prompts], clip_skip)

    def guidance(batch: Sequence[str]) -> Predict:
        conditional = join([encoded[prompt] for prompt in batch])
        if scale <= 1:
            return lambda latents, time: _predict(pipeline, latents, time, conditional)
        negative = encoded[negative_prompt].repeat(len(batch))

        def predict(latents: Tensor, time: Tensor) -> Tensor:
            without, prompted = _predict_both(pipeline, latents, time, negative, conditional)
            return without + scale * (prompted - without)

        return predict

    return guidance


def composed_guidance(
    pipeline: Pipeline, composition: Composition, prompts: Iterable[str], scale: float, clip_skip: int
) -> Guidance:
    """Return composed guidance: one call of the fine-tuned model and two of the base per step.

    Raises:
        InputError: a prompt is too long, or `clip_skip` is out of range.
    """
    instance_prompt, class_prompt = composition.instance_prompt, composition.class_prompt
    product = _encode(pipeline, [instance_prompt], clip_skip)[instance_prompt]
    encoded = _encode(composition.base, [class_prompt, *map(composition.base_prompt, prompts)], clip_skip)

    def guidance(batch: Sequence[str]) -> Predict:
        defective = join([encoded[composition.base_prompt(prompt)] for prompt in batch])
        good, instance = encoded[class_prompt].repeat(len(batch)), product.repeat(len(batch))

        def predict(latents: Tensor, time: Tensor) -> Tensor:
            without, with_defect = _predict_both(composition.base, latents, time, good, defective)
            return _predict(pipeline, latents, time, instance) + scale * (with_defect - without)

        return predict

    return guidance


def _predict_both(
    pipeline: Pipeline, latents: Tensor, time: Tensor, first: Conditioning, second: Conditioning
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the predictions (N, C, h, w) for two prompts per image, computed as one batch."""
    both = _predict(pipeline, latents.repeat(2, 1, 1, 1), time, join([first, second]))
    return both[: len(latents)], both[len(latents) :]


def _predict(pipeline: Pipeline, latents: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
    dtype, factor = weight_type(pipeline), pipeline.vae_scale_factor
    arguments = conditioning.unet_arguments(latents.shape[2] * factor, latents.shape[3] * factor, dtype)
    predicted: Tensor = pipeline.unet(latents.to(dtype), time, **arguments).sample.float()
    return predicted


@torch.inference_mode()
def _encode(pipeline: Pipeline, prompts: Iterable[str], clip_skip: int) -> dict[str, Conditioning]:
    """Encode distinct prompts, each alone, so that the results are independent."""
    encoded = {}
    for prompt in dict.fromkeys(prompts):
        check_prompt(pipeline.tokenizer, prompt)
        encoded[prompt] = encode_prompts(pipeline, [prompt], clip_skip)
    return encoded
