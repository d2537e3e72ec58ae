"""Guidance: combine the predictions of one or two models for each denoising step.

Plain guidance (classifier-free, Ho 2022) follows one model away from its negative prompt. Composed guidance (after Liu
2022, "Compositional Visual Generation with Composable Diffusion Models") takes the product from the fine-tuned model
and the direction of the defect from the base, which has not forgotten any defect:

    e_merged("skt background") + scale * (e_base("background cracked") - e_base("background"))
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from inandout.diffusion.prompts import check_prompt, prompt_states

Predict: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Model input (N, C, h, w) and timestep to the prediction (N, C, h, w) in fp32."""
Guidance: TypeAlias = Callable[[Sequence[str]], Predict]
"""Prompts of a batch to its predictions."""


class Composition(NamedTuple):
    """The base beside the fine-tuned model, and the prompts that relate them."""

    base: StableDiffusionPipeline
    instance_prompt: str
    """Prompt of the fine-tuned model for the product, e.g. "skt background"."""
    class_prompt: str
    """Prompt of the base for the class of the product, e.g. "background"."""

    def base_prompt(self, prompt: str) -> str:
        """Return a prompt with the class prompt in place of the instance prompt, which the base does not know."""
        return prompt.replace(self.instance_prompt, self.class_prompt)


def plain_guidance(
    pipeline: StableDiffusionPipeline, prompts: Iterable[str], negative_prompt: str, scale: float, clip_skip: int
) -> Guidance:
    """Return classifier-free guidance: two model calls per step, one if the scale is 1.

    Raises:
        InputError: a prompt is too long, or `clip_skip` is out of range.
    """
    states = _encode(pipeline, [negative_prompt, *prompts], clip_skip)

    def guidance(batch: Sequence[str]) -> Predict:
        conditional = torch.cat([states[prompt] for prompt in batch])
        if scale <= 1:
            return lambda latents, time: _predict(pipeline.unet, latents, time, conditional)
        negative = states[negative_prompt].expand_as(conditional)

        def predict(latents: Tensor, time: Tensor) -> Tensor:
            without, prompted = _predict_both(pipeline.unet, latents, time, negative, conditional)
            return without + scale * (prompted - without)

        return predict

    return guidance


def composed_guidance(
    pipeline: StableDiffusionPipeline, composition: Composition, prompts: Iterable[str], scale: float, clip_skip: int
) -> Guidance:
    """Return composed guidance: one call of the fine-tuned model and two of the base per step.

    Raises:
        InputError: a prompt is too long, or `clip_skip` is out of range.
    """
    instance_prompt, class_prompt = composition.instance_prompt, composition.class_prompt
    product = _encode(pipeline, [instance_prompt], clip_skip)[instance_prompt]
    states = _encode(composition.base, [class_prompt, *map(composition.base_prompt, prompts)], clip_skip)

    def guidance(batch: Sequence[str]) -> Predict:
        defective = torch.cat([states[composition.base_prompt(prompt)] for prompt in batch])
        good, instance = states[class_prompt].expand_as(defective), product.expand_as(defective)

        def predict(latents: Tensor, time: Tensor) -> Tensor:
            without, with_defect = _predict_both(composition.base.unet, latents, time, good, defective)
            return _predict(pipeline.unet, latents, time, instance) + scale * (with_defect - without)

        return predict

    return guidance


def _predict_both(
    unet: UNet2DConditionModel, latents: Tensor, time: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the predictions (N, C, h, w) for two prompts' states, computed as one batch."""
    both = _predict(unet, latents.repeat(2, 1, 1, 1), time, torch.cat([first, second]))
    return both[: len(latents)], both[len(latents) :]


def _predict(unet: UNet2DConditionModel, latents: Tensor, time: Tensor, states: Tensor) -> Tensor:
    noisy = latents.contiguous(memory_format=torch.channels_last).to(unet.dtype)
    predicted: Tensor = unet(noisy, time, encoder_hidden_states=states.to(unet.dtype)).sample.float()
    return predicted


@torch.inference_mode()
def _encode(pipeline: StableDiffusionPipeline, prompts: Iterable[str], clip_skip: int) -> dict[str, Tensor]:
    """Map distinct prompts to states (1, tokens, width), each encoded alone, so that the states are independent."""
    states = {}
    for prompt in dict.fromkeys(prompts):
        check_prompt(pipeline.tokenizer, prompt)
        states[prompt] = prompt_states(pipeline.text_encoder, pipeline.tokenizer, [prompt], clip_skip)
    return states
