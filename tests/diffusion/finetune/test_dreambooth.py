"""DreamBooth on a tiny random Stable Diffusion."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint as original_checkpoint

from inandout.checkpoint import NonFiniteLossError, load_checkpoint
from inandout.diffusion.base.base import Base
from inandout.diffusion.finetune.config import DreamBoothConfig
from inandout.diffusion.finetune.defect_weights import defect_weights
from inandout.diffusion.finetune.dreambooth import (
    _flatten_parameters,
    _gradient,
    _is_usable,
    _set_gradients,
    build_optimiser,
    chosen_optimiser,
    dreambooth,
)
from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, Example
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import adapter_tensors, add_adapter
from tests.diffusion.tiny import BASE, tiny_pipeline

pytestmark = pytest.mark.slow

QUICK = DreamBoothConfig(batch_size=4, repeats=2, schedule_epochs=4)


class StopError(Exception):
    """Simulates a kill between two steps."""


def base_with_adapter() -> Base:
    pipeline = tiny_pipeline()
    add_adapter(pipeline, AdapterConfig(network_dim=2, network_alpha=1, conv_dim=1), seed=0)
    return Base(pipeline, BASE, "sd")


def dataset(priors: int = 3, other_size: bool = False, mask_weight: float = 1.0) -> DreamBoothDataset:
    """Three images with the same defect. One has another size, and one has no mask."""
    generator = torch.Generator().manual_seed(5)
    shapes = [(5, 16, 16)] * 3 + [(5, 16, 32) if other_size else (5, 16, 16)]
    masks = [None, *(np.indices(shape[1:]).sum(axis=0) < 9 for shape in shapes[1:])]
    images = [
        Example(torch.randn(shape, generator=generator), prior=False, weights=defect_weights(mask, 1, mask_weight))
        for shape, mask in zip(shapes, masks, strict=True)
    ]
    images += [Example(torch.randn((5, 16, 16), generator=generator), prior=True) for _ in range(priors)]
    return DreamBoothDataset(images, "skt background", "background")


def train(
    data: DreamBoothDataset,
    config: DreamBoothConfig = QUICK,
    lr: float = 0.01,
    checkpoint: Path | None = None,
    stop_after: int | None = None,
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    logged: list[dict[str, float]] = []

    def on_step(step: int, values: dict[str, float]) -> None:
        logged.append(values)
        if step == stop_after:
            raise StopError

    trained = dreambooth(
        base_with_adapter(), data, epochs=2, lr=lr, config=config, seed=1,
        checkpoint=checkpoint, save_every=2, on_step=on_step,
    )  # fmt: skip
    return trained, logged


def test_only_the_adapter_of_unet_and_text_encoder_is_trained() -> None:
    base = base_with_adapter()
    before = {name: tensor.clone() for name, tensor in base.pipeline.unet.state_dict().items()}
    trained = dreambooth(base, dataset(), epochs=1, lr=0.01, config=QUICK, seed=1)
    moved = {name.split(".")[0] for name, tensor in trained.items() if ".lora_B." in name and tensor.abs().max() > 0}
    assert moved == {"unet", "text_encoder"}
    for name, tensor in base.pipeline.unet.state_dict().items():
        assert "lora_" in name or torch.equal(tensor, before[name]), name


def test_the_unet_is_trained_in_evaluation_mode() -> None:
    base = base_with_adapter()
    base.pipeline.unet.train()
    dreambooth(base, dataset(), epochs=1, lr=0.01, config=QUICK, seed=1)
    assert not any(module.training for module in base.pipeline.unet.modules())


def test_as_many_prior_as_instance_images_are_trained_on_and_both_losses_logged() -> None:
    _, logged = train(dataset())
    assert (logged[-1]["instance_seen"], logged[-1]["prior_seen"]) == (16, 16)
    for values in logged:
        mean = (values["instance_loss"] + values["prior_loss"]) / 2
        assert values["loss"] == pytest.approx(mean, rel=1e-5)


def test_prior_weight_changes_the_adapter_and_zero_removes_the_prior_loss() -> None:
    weighted, _ = train(dataset(), QUICK.model_copy(update={"prior_weight": 5.0}))
    default, _ = train(dataset())
    assert any(not torch.equal(weighted[name], default[name]) for name in default)
    _, logged = train(dataset(), QUICK.model_copy(update={"prior_weight": 0.0}))
    assert logged[0]["loss"] == pytest.approx(logged[0]["instance_loss"] / 2, rel=1e-5)
    _, without_priors = train(dataset(priors=0))
    assert without_priors[-1]["prior_seen"] == 0
    assert "prior_loss" not in without_priors[-1]


@pytest.mark.parametrize("prior_weight", [0.3, 1.0, 4.0])
def test_the_gradient_is_that_of_the_loss_that_is_logged(monkeypatch: pytest.MonkeyPatch, prior_weight: float) -> None:
    differentiated: list[float] = []

    def gradient(training: Any, loss: torch.Tensor) -> torch.Tensor:
        differentiated.append(loss.item())
        return _gradient(training, loss)

    monkeypatch.setattr("inandout.diffusion.finetune.dreambooth._gradient", gradient)
    _, logged = train(dataset(other_size=True), QUICK.model_copy(update={"prior_weight": prior_weight}))
    assert differentiated == pytest.approx([values["loss"] for values in logged], rel=1e-5)


def test_a_step_is_as_long_as_the_learning_rate() -> None:
    """The first one of Adam moves what has a gradient by the rate: B begins at zero."""
    weights: dict[str, torch.Tensor] = {}
    base = base_with_adapter()

    def on_step(step: int, values: dict[str, float]) -> None:
        if step == 1:
            weights.update(adapter_tensors(base.pipeline))

    dreambooth(base, dataset(), epochs=1, lr=0.004, config=QUICK, seed=1, on_step=on_step)
    moved = [float(tensor.abs().max()) for name, tensor in weights.items() if name.endswith("lora_B.weight")]
    assert max(moved) == pytest.approx(0.004, rel=1e-3)
    assert np.median(moved) > 0.003


def test_training_lowers_the_loss_at_the_same_noise() -> None:
    longer = QUICK.model_copy(update={"repeats": 10, "restarts": 1})
    _, trained = train(dataset(priors=0), longer, lr=0.05)
    _, untrained = train(dataset(priors=0), longer, lr=1e-12)
    assert trained[0]["loss"] == untrained[0]["loss"]
    assert sum(values["loss"] for values in trained[-8:]) < 0.99 * sum(values["loss"] for values in untrained[-8:])


def test_the_learning_rate_schedule_may_be_longer_than_the_training() -> None:
    _, logged = train(dataset(), QUICK.model_copy(update={"schedule_epochs": 4, "restarts": 2}), lr=0.01)
    rates = [values["lr"] for values in logged]
    assert rates[0] == 0.01
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.002


def test_a_resumed_training_gives_the_same_adapter_bit_for_bit(tmp_path: Path) -> None:
    uninterrupted, _ = train(dataset(other_size=True))
    path = tmp_path / "adapter.safetensors"
    with pytest.raises(StopError):
        train(dataset(other_size=True), checkpoint=path, stop_after=5)
    resumed, logged = train(dataset(other_size=True), checkpoint=path)
    assert logged[-1]["instance_seen"] == 16
    assert all(torch.equal(uninterrupted[name], resumed[name]) for name in uninterrupted)


@pytest.mark.parametrize(("scaler", "scale"), [(None, 1), (torch.amp.GradScaler("cpu", init_scale=8), 8)])
@pytest.mark.parametrize("joined", [True, False])
def test_gradients_have_the_scale_of_the_loss(
    scaler: torch.amp.GradScaler | None, scale: int, joined: bool
) -> None:  # fmt: skip
    used, unused = torch.nn.Parameter(torch.tensor([[1.0], [2.0]])), torch.nn.Parameter(torch.ones(3))
    parameters = [used, unused]
    optimised = [_flatten_parameters(parameters)] if joined else parameters
    accelerator = SimpleNamespace(scaler=scaler, num_processes=1)
    training: Any = SimpleNamespace(parameters=parameters, optimised=optimised, accelerator=accelerator)
    _set_gradients(training, _gradient(training, used.square().sum()))
    got = [number for parameter in optimised for number in parameter.grad.flatten().tolist()]
    assert got == [2 * scale, 4 * scale, 0, 0, 0]
    with torch.no_grad():
        optimised[0].fill_(7)
    assert used.tolist() == [[7], [7]]


def test_eight_bit_adam_resumes(tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"optimiser": "adamw8bit"})
    uninterrupted, _ = train(dataset(), config)
    with pytest.raises(StopError):
        train(dataset(), config, checkpoint=tmp_path / "a.safetensors", stop_after=3)
    resumed, _ = train(dataset(), config, checkpoint=tmp_path / "a.safetensors")
    assert all(torch.equal(uninterrupted[name], resumed[name]) for name in uninterrupted)


def test_the_requested_optimiser_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    parameters = [torch.nn.Parameter(torch.zeros(3))]
    names = {
        name: type(build_optimiser(parameters, 0.1, chosen_optimiser(name, torch.device("cpu")))).__name__
        for name in ("auto", "adamw", "adamw8bit")
    }
    assert names == {"auto": "AdamW", "adamw": "AdamW", "adamw8bit": "AdamW8bit"}


def test_errors_are_weighted_by_min_snr(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {}
    for weight in (1.0, 3.0):
        weights = "inandout.diffusion.finetune.dreambooth_loss.min_snr_weights"
        monkeypatch.setattr(weights, lambda scheduler, times, weight=weight: torch.full((len(times),), weight))
        first[weight] = train(dataset())[1][0]["loss"]
    assert first[3.0] == pytest.approx(3 * first[1.0], rel=1e-5)


def test_gradients_are_clipped_to_norm_1(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(StopError):
        weighted = QUICK.model_copy(update={"prior_weight": 100.0})
        train(dataset(), weighted, checkpoint=path, stop_after=2)
    _, logged = train(dataset(), weighted)
    assert min(values["gradient_norm"] for values in logged[:2]) > 1.1
    moments = [t for name, t in load_checkpoint(path).weights.items() if name.startswith("adam.") and t.ndim > 0]
    first = [t for t in moments if (t < 0).any()]  # AdamW's first moments: .9 * .1 * g1 + .1 * g2
    assert torch.cat([t.flatten() for t in first]).norm() <= 0.19 * 1.0001


def test_an_infinite_fp16_gradient_is_usable_until_the_scale_falls_below_1() -> None:
    assert _is_usable(1.0, None)
    assert not _is_usable(float("nan"), None)
    assert _is_usable(float("inf"), torch.amp.GradScaler("cpu", init_scale=1.0))
    assert not _is_usable(float("inf"), torch.amp.GradScaler("cpu", init_scale=0.5))


def test_a_non_finite_loss_stops_training_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(StopError):
        train(dataset(), checkpoint=path, stop_after=2)
    kept = path.read_bytes()
    broken = dataset()
    broken.examples[0].latent.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"at step \d"):
        train(broken, checkpoint=path)
    assert path.read_bytes() == kept


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batches_have_the_losses_and_gradients_of_whole_batches(micro_batch: int) -> None:
    _, logged = train(dataset())
    _, logged_split = train(dataset(), QUICK.model_copy(update={"micro_batch": micro_batch}))
    for values, of_split in zip(logged, logged_split, strict=True):
        assert of_split == pytest.approx(values, rel=1e-3)


def test_micro_batches_of_weighted_images_have_the_losses_and_gradients_of_whole_batches() -> None:
    once = QUICK.model_copy(update={"repeats": 1})
    data = dataset(other_size=True, mask_weight=5.0)
    _, logged = train(data, once)
    _, logged_split = train(data, once.model_copy(update={"micro_batch": 1}))
    for values, of_split in zip(logged, logged_split, strict=True):
        assert of_split == pytest.approx(values, rel=1e-3)


def test_a_base_in_16_bits_keeps_its_precision_and_trains_an_adapter_in_fp32() -> None:
    base = base_with_adapter()
    for name, parameter in base.pipeline.unet.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    base.pipeline.text_encoder.bfloat16()
    trained = dreambooth(base, dataset(), epochs=1, lr=0.01, config=QUICK, seed=1)
    assert base.pipeline.unet.conv_in.weight.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    full = dreambooth(base_with_adapter(), dataset(), epochs=1, lr=0.01, config=QUICK, seed=1)
    moved = [name for name in full if ".lora_B." in name and full[name].abs().max() > 0.01]
    cosines = [torch.cosine_similarity(full[name].flatten(), trained[name].flatten(), 0) for name in moved]
    assert moved and torch.stack(cosines).median() > 0.8


def test_gradient_checkpointing_recomputes_and_gives_the_same_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = train(dataset())
    computed = []

    def counting_checkpoint(function: Any, *arguments: Any, **named: Any) -> Any:
        computed.append(function)
        return original_checkpoint(function, *arguments, **named)

    monkeypatch.setattr("torch.utils.checkpoint.checkpoint", counting_checkpoint)
    saving, _ = train(dataset(), QUICK.model_copy(update={"gradient_checkpointing": True}))
    assert computed
    assert all(torch.allclose(plain[name], saving[name], atol=1e-5) for name in plain)


SCRIPT = """
import json, sys
import torch
torch.set_num_threads(1)
from tests.diffusion.finetune.test_dreambooth import dataset, train
trained, logged = train(dataset(other_size=True, mask_weight=5.0))
from accelerate import PartialState
if PartialState().is_main_process:
    json.dump([PartialState().num_processes, [values["loss"] for values in logged]], open(sys.argv[1], "w"))
"""


@pytest.mark.torture
def test_two_processes_have_the_same_losses_as_one(tmp_path: Path) -> None:
    script, result = tmp_path / "two.py", tmp_path / "result.json"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    root = str(Path(__file__).parents[3])
    with (tmp_path / "log").open("w") as log:  # processes that outlive a timeout would keep a pipe open
        subprocess.run(
            [*launch, str(script), str(result)], cwd=root, check=True, timeout=300, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": root},
        )  # fmt: skip
    processes, losses = json.loads(result.read_text())
    _, logged = train(dataset(other_size=True, mask_weight=5.0))
    assert processes == 2
    assert losses == pytest.approx([values["loss"] for values in logged], rel=1e-5)
