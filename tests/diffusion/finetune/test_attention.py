import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch.testing import assert_close

from inandout.diffusion.finetune.attention import attention


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("text_width", [None, 6])
def test_it_is_that_of_diffusers(text_width: int | None, masked: bool) -> None:
    torch.manual_seed(0)
    layer = Attention(8, cross_attention_dim=text_width, heads=2, dim_head=4).eval()
    x, text = torch.randn(3, 4, 8), None if text_width is None else torch.randn(3, 5, text_width)
    mask = -9 * torch.rand(3, 1, 4 if text is None else 5) if masked else None
    own = attention(layer)
    assert own is not None
    assert_close(own(x, encoder_hidden_states=text, attention_mask=mask), layer(x, text, mask))
    assert not torch.equal(layer(x, text, mask), layer(x, text)) or not masked


@pytest.mark.parametrize(
    "more", [{"residual_connection": True}, {"norm_num_groups": 2}, {"rescale_output_factor": 2.0}, {"scale_qk": False}]
)
def test_an_attention_that_has_more_stays_as_it_was(more: dict[str, float]) -> None:
    assert attention(Attention(8, heads=2, dim_head=4, **more)) is None
