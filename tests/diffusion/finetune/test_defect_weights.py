import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from inandout.diffusion.finetune.defect_weights import check_masks, defect_weights
from inandout.diffusion.finetune.dreambooth_loss import denoising_errors
from inandout.diffusion.snr_weighting import min_snr_weights
from inandout.errors import InputError


def mask_of(row: int, column: int) -> np.ndarray:
    """One pixel of 8x12, which is a latent of 4x6 for a factor of 2."""
    mask = np.zeros((8, 12), np.bool_)
    mask[row, column] = True
    return mask


def test_one_pixel_weights_its_latent_pixel_and_the_neighbours() -> None:
    weights = defect_weights(mask_of(3, 5), 2, 5.0)
    assert weights is not None
    expected = torch.full((1, 4, 6), 0.4)  # the mean of 9 times 5 and 15 times 1 is 2.5
    expected[:, 0:3, 1:4] = 2.0
    assert torch.equal(weights, expected)


def test_a_defect_in_the_corner_has_fewer_neighbours() -> None:
    weights = defect_weights(mask_of(7, 11), 2, 13.0)
    assert weights is not None
    assert weights[0, 2:, 4:].tolist() == pytest.approx(np.full((2, 2), 13 / 3))
    assert weights.sum() == pytest.approx(24)
    assert (weights < 1).sum() == 20


def test_without_a_defect_or_with_weight_1_the_weights_are_1() -> None:
    assert defect_weights(None, 2, 5.0) is None
    assert defect_weights(mask_of(3, 5), 2, 1.0) is None
    empty = defect_weights(np.zeros((8, 12), np.bool_), 2, 5.0)
    assert empty is not None and torch.equal(empty, torch.ones(1, 4, 6))


def test_a_weight_needs_a_mask_with_a_defect() -> None:
    empty = np.zeros((8, 12), np.bool_)
    check_masks([None, empty], 1.0)
    check_masks([None, empty, mask_of(3, 5)], 5.0)
    with pytest.raises(InputError, match="mask_weight = 5: no image to fine-tune on has a mask"):
        check_masks([None, empty], 5.0)


def test_squared_errors_are_multiplied_by_the_weights() -> None:
    scheduler = DDIMScheduler()
    random = torch.Generator().manual_seed(0)
    predicted, latents, noise = (torch.randn((2, 3, 4, 6), generator=random) for _ in range(3))
    times = torch.tensor([100, 900])
    plain = denoising_errors(scheduler, predicted, latents, noise, times)
    snr = min_snr_weights(scheduler, times)
    assert torch.equal(plain, (predicted - noise).square().mean(dim=(1, 2, 3)) * snr)
    weights = defect_weights(mask_of(3, 5), 2, 5.0)
    assert weights is not None
    weighted = denoising_errors(
        scheduler, predicted, latents, noise, times, torch.stack([weights, torch.ones(1, 4, 6)])
    )
    squares = ((predicted - noise) ** 2)[0].sum(dim=0)
    inside = squares[0:3, 1:4].sum()
    by_hand = (2.0 * inside + 0.4 * (squares.sum() - inside)) / (3 * 4 * 6) * snr[0]
    assert float(weighted[0]) == pytest.approx(float(by_hand), rel=1e-5)
    assert torch.equal(weighted[1], plain[1])
