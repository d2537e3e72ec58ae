"""Prompts as what the UNet attends to."""

from collections.abc import Sequence

from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from inandout.errors import InputError


def prompt_states(
    text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, prompts: Sequence[str], clip_skip: int = 1
) -> Tensor:
    """(N, tokens, width) for N prompts, each filled up or cut off to the tokenizer's length; differentiable.

    Args:
        text_encoder: it decides on the device.
        tokenizer: the one that the text encoder was trained with.
        prompts: "" is the unconditional one.
        clip_skip: which layer's output, counted from the last as kohya's scripts do: 1 is the last, 2 the last but one.
            The final norm follows in any case. (diffusers counts from 0, and its own way fails on transformers 5.)

    Raises:
        InputError: there are fewer layers.
    """
    layers = text_encoder.config.num_hidden_layers
    if not 1 <= clip_skip <= layers:
        raise InputError(f"clip_skip = {clip_skip}: the base's text encoder has {layers} layers; give 1 to {layers}")
    tokens = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    ids = tokens.input_ids.to(text_encoder.device)
    if clip_skip == 1:
        last: Tensor = text_encoder(ids)[0]
        return last
    outputs = text_encoder(ids, output_hidden_states=True).hidden_states  # the embeddings, then one a layer
    states: Tensor = getattr(text_encoder, "text_model", text_encoder).final_layer_norm(outputs[-clip_skip])
    return states


def token_count(tokenizer: CLIPTokenizer, prompt: str) -> int:
    """Tokens of a prompt, begin and end included."""
    return len(tokenizer(prompt, verbose=False).input_ids)


def check_prompt(tokenizer: CLIPTokenizer, prompt: str) -> None:
    """Refuse a prompt whose end would be cut off.

    Raises:
        InputError: names the prompt and the limit.
    """
    count, limit = token_count(tokenizer, prompt), tokenizer.model_max_length
    if count > limit:
        raise InputError(
            f"the prompt {prompt!r} has {count} tokens, begin and end included, and the base reads {limit}; shorten it"
        )
