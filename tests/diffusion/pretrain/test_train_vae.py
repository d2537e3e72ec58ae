from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from inandout.diffusion.pretrain.build_vae import build_vae
from inandout.diffusion.pretrain.config import HELD_OUT
from inandout.diffusion.pretrain.pca_latents import CHANNELS, surface_components
from inandout.diffusion.pretrain.stream import SurfaceStream
from inandout.diffusion.pretrain.train_vae import pretrain_vae
from inandout.diffusion.reconstruction import measure_reconstruction
from inandout.diffusion.vae import decode, encode, to_images, to_tensor

pytestmark = pytest.mark.slow

COMPONENTS = surface_components(140)
UNSEEN = SurfaceStream(HELD_OUT, 16).batch(0, (64, 64)).images


class StopError(Exception):
    """Simulates a kill between two steps."""


def tiny() -> AutoencoderTiny:
    return build_vae(COMPONENTS, seed=0, width=8, blocks=(1, 0))


def test_components_are_orthonormal_and_sorted() -> None:
    flat = COMPONENTS.basis.reshape(CHANNELS, -1)
    assert np.allclose(flat @ flat.T, np.eye(CHANNELS))
    assert (np.diff(COMPONENTS.spread) <= 0).all()
    assert np.isclose((COMPONENTS.target**2).mean(), 1)


def test_the_encoder_computes_the_components() -> None:
    patches = UNSEEN.reshape(-1, 32, 2, 32, 2, 3).transpose(0, 1, 3, 2, 4, 5) / 255 - COMPONENTS.mean
    expected = np.einsum("nabyxc,kyxc->nkab", patches, COMPONENTS.basis)
    expected *= (COMPONENTS.target / COMPONENTS.spread)[:, None, None]
    assert np.abs(encode(tiny(), UNSEEN).numpy() - expected).max() < 1e-4


def test_latents_are_centred_and_have_about_the_target_spread() -> None:
    latents = encode(tiny(), SurfaceStream(HELD_OUT + 1, 128).batch(0, (64, 64)).images)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.4
    assert np.allclose(latents.std(dim=(0, 2, 3)).numpy(), COMPONENTS.target, rtol=0.3)


def test_conversion_to_tensors_is_lossless() -> None:
    assert np.array_equal(to_images(to_tensor(UNSEEN)), UNSEEN)


def test_reconstruction_quality_of_copies_and_of_blurred_images() -> None:
    same = measure_reconstruction(UNSEEN, UNSEEN)
    assert same.psnr >= 99
    assert same.gradient_energy == 1
    flat = np.broadcast_to(UNSEEN.mean(axis=(1, 2), keepdims=True).round(), UNSEEN.shape).astype(np.uint8)
    assert measure_reconstruction(UNSEEN, flat).gradient_energy == 0


def train(steps: int, checkpoint: Path | None = None, stop_after: int | None = None) -> AutoencoderTiny:
    def on_step(step: int, values: dict[str, float]) -> None:
        if step == stop_after:
            raise StopError

    vae = tiny()
    pretrain_vae(
        vae, SurfaceStream(0, 1), steps=steps, lr=1e-3, checkpoint=checkpoint, save_every=2, on_step=on_step
    )  # fmt: skip
    return vae


def test_a_resumed_training_gives_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    uninterrupted = train(6).state_dict()
    with pytest.raises(StopError):
        train(6, tmp_path / "vae.safetensors", stop_after=3)
    resumed = train(6, tmp_path / "vae.safetensors").state_dict()
    for name, tensor in uninterrupted.items():
        assert torch.equal(tensor, resumed[name]), name


def test_progress_is_the_share_of_the_steps_also_after_a_resume(tmp_path: Path) -> None:
    progress: list[float] = []
    for steps in (2, 4):
        pretrain_vae(
            tiny(), SurfaceStream(0, 1), steps=steps, lr=1e-3, checkpoint=tmp_path / "vae.safetensors",
            on_step=lambda step, values: progress.append(values["progress"]),
        )  # fmt: skip
    assert progress == [0.5, 1.0, 0.75, 1.0]


def test_training_keeps_the_encoder_and_improves_the_decoder() -> None:
    before, after = tiny(), train(60)
    assert torch.equal(encode(before, UNSEEN), encode(after, UNSEEN))
    first, last = (measure_reconstruction(UNSEEN, decode(vae, encode(vae, UNSEEN))).psnr for vae in (before, after))
    assert last > first + 3
