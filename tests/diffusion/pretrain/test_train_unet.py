from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inandout.checkpoint import NonFiniteLossError
from inandout.diffusion.base.base import open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.lr_schedules import hold_and_decay
from inandout.diffusion.pretrain.assemble import assemble, load_train_state
from inandout.diffusion.pretrain.build_vae import build_vae
from inandout.diffusion.pretrain.captions import vocabulary
from inandout.diffusion.pretrain.ema import ExponentialMovingAverage
from inandout.diffusion.pretrain.networks import build_scheduler, build_text_encoder, build_unet
from inandout.diffusion.pretrain.pca_latents import surface_components
from inandout.diffusion.pretrain.stream import SurfaceStream
from inandout.diffusion.pretrain.tokenizer import build_tokenizer
from inandout.diffusion.pretrain.train_unet import (
    DEFECT_WEIGHT,
    TrainState,
    pixel_weights,
    pretrain_unet,
)
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.sampler import sample

pytestmark = pytest.mark.slow


class StopError(Exception):
    """Simulates a kill between two steps."""


def tiny() -> TrainState:
    tokenizer = build_tokenizer(vocabulary())
    text_encoder, unet = build_text_encoder(len(tokenizer), 0, width=16), build_unet(0, (8, 8, 8, 8), text_width=16)
    ema = ExponentialMovingAverage(nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}))
    vae = build_vae(surface_components(70), 0, width=8, blocks=(1, 0))
    return TrainState(unet, text_encoder, tokenizer, vae, build_scheduler(), ema)


def train(steps: int, checkpoint: Path | None = None, stop_after: int | None = None, lr: float = 1e-3) -> TrainState:
    def on_step(step: int, values: dict[str, float]) -> None:
        if step == stop_after:
            raise StopError

    train_state = tiny()
    pretrain_unet(
        train_state, SurfaceStream(0, 2), steps=steps, lr=lr, checkpoint=checkpoint, save_every=2, on_step=on_step
    )  # fmt: skip
    return train_state


def test_a_resumed_training_gives_the_same_weights_and_ema_bit_for_bit(tmp_path: Path) -> None:
    uninterrupted = train(6)
    with pytest.raises(StopError):
        train(6, tmp_path / "unet.safetensors", stop_after=3)
    resumed = train(6, tmp_path / "unet.safetensors")
    for name, tensor in uninterrupted.parts().state_dict().items():
        assert torch.equal(tensor, resumed.parts().state_dict()[name]), name
        assert torch.equal(uninterrupted.ema.values[name], resumed.ema.values[name]), name


def test_progress_is_the_share_of_the_steps_also_after_a_resume(tmp_path: Path) -> None:
    progress: list[float] = []
    for steps in (2, 4):
        pretrain_unet(
            tiny(), SurfaceStream(0, 2), steps=steps, lr=1e-3, checkpoint=tmp_path / "unet.safetensors",
            on_step=lambda step, values: progress.append(values["progress"]),
        )  # fmt: skip
    assert progress == [0.5, 1.0, 0.75, 1.0]


def test_text_encoder_and_unet_are_both_trained() -> None:
    before, after = tiny().parts().state_dict(), train(2).parts().state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"unet", "text_encoder"}


def test_the_text_encoder_has_its_share_of_the_learning_rate() -> None:
    moved = []
    for share in (0.01, 1.0):
        train_state = tiny()
        before = {name: value.clone() for name, value in train_state.text_encoder.state_dict().items()}
        pretrain_unet(train_state, SurfaceStream(0, 2), steps=2, lr=1e-3, text_share=share)
        moved.append(
            sum((value - before[name]).abs().sum() for name, value in train_state.text_encoder.state_dict().items())
        )
    assert 0 < 50 * moved[0] < moved[1]


def test_a_non_finite_loss_stops_training() -> None:
    with pytest.raises(NonFiniteLossError, match=r"at step \d"):
        train(40, lr=1e12)


def test_the_learning_rate_does_not_depend_on_the_length_before_the_decay() -> None:
    assert [hold_and_decay(step, 1000, 1.0) for step in (100, 700)] == [0.5, 1.0]
    assert hold_and_decay(700, 5000, 1.0) == 1.0
    assert hold_and_decay(1000, 1000, 1.0) == 0.0


def test_the_pipeline_has_the_ema_weights_and_can_be_saved_and_loaded(tmp_path: Path) -> None:
    train_state = train(3)
    pipeline = assemble(train_state)
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(value, train_state.ema.values[f"unet.{name}"])
    pipeline.save_pretrained(tmp_path / "base")
    assert not list((tmp_path / "base").rglob("*.bin"))
    opened = open_base(BaseConfig(base=str(tmp_path / "base"))).pipeline
    before, after = (draw(one) for one in (pipeline, opened))
    assert before.shape == (2, 64, 32, 3)
    assert np.abs(before.astype(int) - after).max() <= 1


def test_training_continues_from_the_ema_weights(tmp_path: Path) -> None:
    train_state = train(3)
    assemble(train_state).save_pretrained(tmp_path / "base")
    further = load_train_state(tmp_path / "base")
    for name, value in further.parts().state_dict().items():
        assert torch.equal(value, train_state.ema.values[name]), name
    pretrain_unet(further, SurfaceStream(1, 2), steps=2, lr=1e-3)
    assemble(further).save_pretrained(tmp_path / "further")
    assert not [path for path in (tmp_path / "further").rglob("*.json") if str(tmp_path) in path.read_text()]
    before = train_state.ema.values
    moved = {name for name, value in further.ema.values.items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"unet", "text_encoder"}


def draw(pipeline: object) -> np.ndarray:
    prompts, seeds = ["skt background cracked"] * 2, [0, 1]
    config = SamplingConfig(steps=2).resolved("embedded")
    return next(sample(pipeline, prompts, seeds, width=32, height=64, config=config)).images


def test_a_defect_and_its_border_have_a_higher_weight() -> None:
    masks = np.zeros((2, 16, 24), bool)
    masks[1, 8, 12] = True
    weights = pixel_weights(masks)
    assert weights.shape == (2, 8, 12)
    assert (weights[0] == 1).all()
    weighted = (weights[1] == DEFECT_WEIGHT).nonzero().tolist()
    assert {(row, column) for row, column in weighted} == {(r, c) for r in (3, 4, 5) for c in (5, 6, 7)}
    assert set(weights.unique().tolist()) == {1.0, DEFECT_WEIGHT}
