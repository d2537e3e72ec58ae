import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from inandout.diffusion.pretrain.tokenizer import LENGTH, build_tokenizer
from inandout.diffusion.prompts import check_prompt, prompt_states, token_count
from inandout.errors import InputError

TOKENIZER = build_tokenizer(["background", "crack"])
PROMPTS = ["background", "background crack", ""]
SHAPE = {
    "vocab_size": len(TOKENIZER), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 2, "max_position_embeddings": LENGTH, "projection_dim": 16,
}  # fmt: skip


def encoder() -> CLIPTextModel:
    torch.manual_seed(0)
    model = CLIPTextModel(CLIPTextConfig(**SHAPE)).eval()
    torch.nn.init.normal_(model.final_layer_norm.weight)  # its initial value of 1 would hide a missing norm
    return model


def ids() -> torch.Tensor:
    return TOKENIZER(PROMPTS, padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids


def test_clip_skip_1_is_the_output_of_the_text_encoder() -> None:
    states = prompt_states(encoder(), TOKENIZER, PROMPTS)
    assert states.shape == (3, LENGTH, 16)
    assert torch.equal(states, encoder()(ids())[0])


def test_clip_skip_2_equals_a_text_encoder_without_its_last_layer() -> None:
    full, shorter = encoder(), encoder()
    del shorter.encoder.layers[-1]
    states = prompt_states(full, TOKENIZER, PROMPTS, clip_skip=2)
    assert torch.allclose(states, shorter(ids())[0], atol=1e-6)
    assert not torch.allclose(states, full(ids())[0], atol=1e-2)


def test_a_nested_text_encoder_gives_the_same_states() -> None:
    nested = CLIPTextModelWithProjection(CLIPTextConfig(**SHAPE)).eval()
    nested.text_model.load_state_dict(encoder().state_dict())
    assert torch.equal(
        prompt_states(nested, TOKENIZER, PROMPTS, clip_skip=2), prompt_states(encoder(), TOKENIZER, PROMPTS, 2)
    )


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_gradients_reach_the_first_layer(clip_skip: int) -> None:
    model = encoder()
    prompt_states(model, TOKENIZER, PROMPTS, clip_skip).square().sum().backward()
    assert model.encoder.layers[0].mlp.fc1.weight.grad.abs().max() > 0
    used = [layer.mlp.fc1.weight.grad is not None for layer in model.encoder.layers]
    assert used[: 4 - clip_skip] == [True] * (4 - clip_skip)


@pytest.mark.parametrize("clip_skip", [0, 4])
def test_a_clip_skip_out_of_range_is_rejected(clip_skip: int) -> None:
    with pytest.raises(InputError, match=f"clip_skip = {clip_skip}.*3 layers.*1 to 3"):
        prompt_states(encoder(), TOKENIZER, PROMPTS, clip_skip)


def test_a_prompt_that_would_be_truncated_is_rejected() -> None:
    longest = " ".join(["crack"] * (LENGTH - 2))
    assert token_count(TOKENIZER, longest) == LENGTH
    check_prompt(TOKENIZER, longest)
    with pytest.raises(InputError, match=rf"'{longest} crack' has {LENGTH + 1} tokens.*limit is {LENGTH}"):
        check_prompt(TOKENIZER, longest + " crack")
