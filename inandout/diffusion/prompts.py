"""Encode and check prompts."""

from collections.abc import Sequence

from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from inandout.errors import InputError


def prompt_states(
    text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, prompts: Sequence[str], clip_skip: int = 1
) -> Tensor:
    """Encode N prompts as (N, tokens, width) states for cross-attention, differentiably.

    Prompts are padded or truncated to the tokenizer's length.

    Args:
        text_encoder: determines the device.
        tokenizer: the tokenizer of the text encoder.
        prompts: "" is the unconditional prompt.
        clip_skip: layer whose output is used, counted from the last as in kohya's scripts: 1 is the last, 2 the last
            but one. The final norm is always applied. (diffusers counts from 0, and its implementation fails with
            transformers 5.)

    Raises:
        InputError: `clip_skip` exceeds the number of layers.
    """
    layers = text_encoder.config.num_hidden_layers
    if not 1 <= clip_skip <= layers:
        raise InputError(f"clip_skip = {clip_skip}: the text encoder has {layers} layers; give 1 to {layers}")
    tokens = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    ids = tokens.input_ids.to(text_encoder.device)
    if clip_skip == 1:
        last: Tensor = text_encoder(ids)[0]
        return last
    outputs = text_encoder(ids, output_hidden_states=True).hidden_states  # embeddings, then each layer
    states: Tensor = getattr(text_encoder, "text_model", text_encoder).final_layer_norm(outputs[-clip_skip])
    return states


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
