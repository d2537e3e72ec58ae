"""Encode and check prompts."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from inandout.diffusion.pipeline import Pipeline, is_xl
from inandout.errors import InputError


class Conditioning(NamedTuple):
    """Prompts as the UNet of any base reads them."""

    states: Tensor
    """(N, tokens, width), for cross-attention."""
    pooled: Tensor | None = None
    """(N, width) of SDXL, a summary of each prompt; None for other bases."""

    def take(self, indices: Tensor) -> Self:
        """Return the prompts at these indices (M,)."""
        pooled = None if self.pooled is None else self.pooled[indices.to(self.pooled.device)]
        return self._replace(states=self.states[indices.to(self.states.device)], pooled=pooled)

    def repeat(self, count: int) -> Self:
        """Return a single prompt `count` times."""
        return self.take(torch.zeros(count, dtype=torch.long))

    def unet_arguments(self, height: int, width: int, dtype: torch.dtype) -> dict[str, Any]:
        """Return the keyword arguments of the UNet, in its type, for images of height x width px.

        SDXL also reads the size of the original image, the corner of the crop, and the size of the result. Images are
        neither enlarged nor cropped: both sizes are those of the images, and the corner is 0, 0.
        """
        arguments: dict[str, Any] = {"encoder_hidden_states": self.states.to(dtype)}
        if self.pooled is not None:
            sizes = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=self.pooled.device)
            arguments["added_cond_kwargs"] = {
                "text_embeds": self.pooled.to(dtype), "time_ids": sizes.expand(len(self.pooled), -1),
            }  # fmt: skip
        return arguments


def join(parts: Sequence[Conditioning]) -> Conditioning:
    """Return the prompts of all parts, one after the other."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return Conditioning(torch.cat([part.states for part in parts]), torch.cat(pooled) if pooled else None)


def encode_prompts(pipeline: Pipeline, prompts: Sequence[str], clip_skip: int = 1) -> Conditioning:
    """Encode N prompts by all text encoders, differentiably, on their device.

    As in diffusers, the empty prompt is all zeros for an SDXL whose configuration says so.

    Args:
        pipeline: the base, with or without an adapter.
        prompts: "" is the unconditional prompt.
        clip_skip: see `prompt_states`. SDXL always reads the last layer but one of both encoders, without the final
            norm, and allows 1 only.

    Raises:
        InputError: `clip_skip` is out of range.
    """
    if not is_xl(pipeline):
        return Conditioning(prompt_states(pipeline.text_encoder, pipeline.tokenizer, prompts, clip_skip))
    if clip_skip != 1:
        raise InputError(
            f"clip_skip = {clip_skip}: SDXL was trained on the last layer but one and always reads it; give 1"
        )
    encoders = ((pipeline.text_encoder, pipeline.tokenizer), (pipeline.text_encoder_2, pipeline.tokenizer_2))
    outputs = [
        encoder(_token_ids(tokenizer, prompts).to(encoder.device), output_hidden_states=True)
        for encoder, tokenizer in encoders
    ]
    states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    pooled: Tensor = outputs[1].text_embeds
    if pipeline.config.force_zeros_for_empty_prompt:
        kept = torch.tensor([float(prompt != "") for prompt in prompts]).to(states)
        states, pooled = states * kept[:, None, None], pooled * kept[:, None]
    return Conditioning(states, pooled)


def prompt_states(
    text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, prompts: Sequence[str], clip_skip: int = 1
) -> Tensor:
    """Encode N prompts as (N, tokens, width) states of one text encoder, differentiably.

    Prompts are padded or truncated to the tokenizer's length.

    Args:
        text_encoder: determines the device.
        tokenizer: the tokenizer of the text encoder.
        prompts: "" is the unconditional prompt.
        clip_skip: layer whose output is used, counted from the last as in kohya's scripts: 1 is the last, 2 the last
            but one. The final norm is always applied. (diffusers counts from 0, and its implementation fails with
            transformers 5.) The files of Stable Diffusion 2 hold its text encoder without the last layer already.

    Raises:
        InputError: `clip_skip` exceeds the number of layers.
    """
    layers = text_encoder.config.num_hidden_layers
    if not 1 <= clip_skip <= layers:
        raise InputError(f"clip_skip = {clip_skip}: the text encoder has {layers} layers; give 1 to {layers}")
    ids = _token_ids(tokenizer, prompts).to(text_encoder.device)
    if clip_skip == 1:
        last: Tensor = text_encoder(ids)[0]
        return last
    outputs = text_encoder(ids, output_hidden_states=True).hidden_states  # embeddings, then each layer
    states: Tensor = getattr(text_encoder, "text_model", text_encoder).final_layer_norm(outputs[-clip_skip])
    return states


def _token_ids(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    tokens = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    ids: Tensor = tokens.input_ids
    return ids


def token_count(tokenizer: CLIPTokenizer, prompt: str) -> int:
    """Return the number of tokens of a prompt, including start and end."""
    return len(tokenizer(prompt, verbose=False).input_ids)


def check_prompt(tokenizer: CLIPTokenizer, prompt: str) -> None:
    """Raise an InputError if a prompt is longer than the text encoder's input and would be truncated."""
    count, limit = token_count(tokenizer, prompt), tokenizer.model_max_length
    if count > limit:
        raise InputError(
            f"the prompt {prompt!r} has {count} tokens, including start and end, but the limit is {limit}; shorten it"
        )
