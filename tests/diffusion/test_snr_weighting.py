import numpy as np
import torch
from diffusers import DDPMScheduler

from inandout.diffusion.pretrain.networks import build_scheduler
from inandout.diffusion.snr_weighting import draw_logit_normal_times, draw_times, min_snr_weights, prediction_target

TIMES = torch.arange(1000)


def test_the_last_step_of_v_prediction_is_pure_noise_and_has_weight_1() -> None:
    scheduler = build_scheduler()
    signal = scheduler.alphas_cumprod
    assert signal[-1] < 1e-6
    weights = min_snr_weights(scheduler, TIMES)
    assert weights[-1] == 1
    snr = signal / (1 - signal)
    assert torch.allclose(weights, torch.minimum(snr + 1, torch.tensor(5.0)) / (snr + 1), atol=1e-4)


def test_weights_of_noise_prediction_are_the_papers() -> None:
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    assert torch.allclose(min_snr_weights(scheduler, TIMES), torch.clamp(5.0 / snr, max=1))


def test_the_target_is_the_noise_or_v() -> None:
    latents, noise, times = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4), torch.tensor([10, 900])
    assert prediction_target(DDPMScheduler(), latents, noise, times) is noise
    scheduler = build_scheduler()
    signal = scheduler.alphas_cumprod[times].reshape(2, 1, 1, 1)
    expected = signal.sqrt() * noise - (1 - signal).sqrt() * latents
    assert torch.allclose(prediction_target(scheduler, latents, noise, times), expected, atol=1e-6)


def test_times_are_evenly_spaced() -> None:
    times = draw_times(10, 1000, torch.Generator().manual_seed(0))
    assert np.allclose(np.diff(np.sort(times.numpy())), 100, atol=1)
    assert 0 <= times.min() <= times.max() < 1000


def test_most_times_are_logit_normal_and_a_quarter_is_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    times = torch.cat([draw_logit_normal_times(16, 1000, generator) for _ in range(100)])
    assert 0 <= times.min() < 50
    assert 950 < times.max() <= 999
    assert 650 < times.median() < 750
    assert ((times >= 500) & (times < 900)).float().mean() > 0.65
    assert ((times < 300).float().mean() - 0.25 * 0.3 - 0.75 * 0.015).abs() < 0.03


def test_logit_normal_times_depend_on_the_generator_alone() -> None:
    first, second = (draw_logit_normal_times(16, 1000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
