"""Training and prediction of the classifier, independent of dataset files and MLflow."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from inandout.checkpoint import (
    Checkpoint,
    NonFiniteLossError,
    load_checkpoint,
    pack_optimiser,
    save_checkpoint,
    unpack_optimiser,
)
from inandout.classifier.backbone import DefectNet, Prediction
from inandout.classifier.config import FitConfig
from inandout.classifier.features import HeadInputs, compute_inputs, evaluate_batches, head_inputs, to_tensor
from inandout.classifier.frequency_sampler import FrequencySampler, Indices
from inandout.classifier.mask_head import LEARNING_RATE, mask_loss
from inandout.classifier.mask_targets import Targets
from inandout.classifier.pixels import Pixels
from inandout.errors import InputError, brief
from inandout.hardware import Precision

Logits = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Forward = Callable[[Indices], Prediction]
"""Maps indices (B,) of training images to the logits of the heads."""
READ_EVERY = 20
"""Steps between two readings of the loss; every reading waits for the GPU."""
OnEpoch = Callable[[int, dict[str, float]], None]
"""Called after every epoch with its number, from 1, and its values, to which the callback may add.

A resumed run first calls it again for all earlier epochs with their values.
"""


def fit(
    model: DefectNet,
    pixels: Pixels,
    labels: Labels,
    config: FitConfig,
    *,
    seed: int,
    every_epoch: npt.NDArray[np.bool_] | None = None,
    masks: Targets | None = None,
    checkpoint: Path | None = None,
    precision: Precision = "fp32",
    on_epoch: OnEpoch = lambda epoch, values: None,
) -> list[dict[str, float]]:
    """Train by the KolektorSDD2 protocol: frequency-of-use sampling, no augmentation, the last epoch is used.

    Args:
        model: trained in place on its device; left in training mode.
        pixels: (N, H, W, 3) uint8.
        labels: (N,) of 0 and 1.
        config: hyperparameters. Sizes of an epoch's batches differ by at most one, so that no batch has size one. `sgd`
            has no momentum and no weight decay.
        seed: seed of the order of the images.
        every_epoch: (N,), marks negatives that are added to every epoch.
        masks: targets of the mask head; required by a model with this head. Its loss is added to that of the image, and
            its own optimiser is AdamW.
        checkpoint: written after every epoch. If the file exists, training resumes from it, with bit-identical final
            weights on the same machine with the same number of threads.
        precision: of the products and convolutions (autocast); weights and last layer stay in fp32.
        on_epoch: called with the epoch and `loss`, the mean over its images.

    Returns:
        The values of all epochs, including those before a resume.

    Raises:
        InputError: `config.compile` is true, and torch.compile fails.
        NonFiniteLossError: the loss or a weight is not finite; the checkpoint of the previous epoch is kept.
    """
    model.to(memory_format=torch.channels_last)
    sampler = FrequencySampler(labels, seed, every_epoch)
    optimisers = _optimisers(model, config)
    scaler = torch.amp.GradScaler(model.mean.device.type, enabled=precision == "fp16")
    history: list[dict[str, float]] = []
    if checkpoint is not None and checkpoint.exists():
        history = _resume(model, optimisers, scaler, sampler, checkpoint)
    forward = _forward(model, pixels, precision, config.compile)
    for epoch, values in enumerate(history, start=1):
        on_epoch(epoch, values)
    for epoch in tqdm(
        range(len(history) + 1, config.epochs + 1), "train", total=config.epochs, initial=len(history), unit="epoch",
        disable=None,
    ):  # fmt: skip
        with _compilation() if config.compile else nullcontext():
            loss = _train_epoch(
                model, optimisers, scaler, forward, labels, masks, sampler.epoch(), config.batch_size, epoch
            )
        _reject_non_finite(model, epoch)
        history.append({"loss": loss})
        on_epoch(epoch, history[-1])
        if checkpoint is not None:
            _save(model, optimisers, scaler, sampler, history, checkpoint)
    return history


def predict(model: DefectNet, pixels: Pixels, batch_size: int = 32, precision: Precision = "fp32") -> Logits:
    """Return defect logits (N,) in evaluation mode; the mode of the model is restored afterwards.

    With distances the precision is fp32: rounding makes a patch farther from its nearest one.
    """
    precision = "fp32" if model.distance_head else precision
    batches = evaluate_batches(
        model, lambda images: model.combined(*compute_inputs(model.head_inputs, images, precision)), pixels, batch_size
    )
    return np.concatenate([np.empty(0), *(batch.double().cpu().numpy() for batch in batches)])


def predictor(model: DefectNet, pixels: Pixels, precision: Precision = "fp32") -> Callable[[], Logits]:
    """Return a function that predicts `pixels` (N, H, W, 3) as `predict` does with the weights at the time of the call.

    The features of a frozen backbone are computed once.
    """
    if model.freeze != "all":
        return lambda: predict(model, pixels, precision=precision)
    inputs = head_inputs(model, pixels, precision)

    @torch.no_grad()
    def predict_all() -> Logits:
        batches = [model.combined(*batch).double().cpu().numpy() for batch in _batches(inputs, model.mean.device)]
        return np.concatenate([np.empty(0), *batches])

    return predict_all


def _forward(model: DefectNet, pixels: Pixels, precision: Precision, compiled: bool) -> Forward:
    """Return the forward pass of training; the inputs of the heads of a frozen backbone are computed once."""
    device = model.mean.device
    if model.freeze != "all":
        network = _compile(model) if compiled else model.head_inputs
        return lambda batch: model.heads(*compute_inputs(network, to_tensor(pixels[batch], device), precision))
    inputs = head_inputs(model, pixels, precision)
    return lambda batch: model.heads(*(torch.from_numpy(array[batch]).to(device) for array in inputs))


def _compile(model: DefectNet) -> HeadInputs:
    """Return `model.head_inputs`, compiled at the first batch of each size; a training has at most two sizes."""
    torch.compiler.reset()  # all models share the limit of compiled sizes, after which PyTorch would not compile
    return torch.compile(model.head_inputs, dynamic=False)


@contextmanager
def _compilation() -> Iterator[None]:
    """Raise an InputError in place of an error of `torch.compile`."""
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    try:
        yield
    except TorchDynamoException as error:
        raise InputError(
            f"compile = True: torch.compile failed ({brief(error)}); it needs a C++ compiler on a CPU and Triton "
            "on a GPU; install it, or give compile=false"
        ) from error


def _batches(
    inputs: list[npt.NDArray[np.float32]], device: torch.device, batch_size: int = 256
) -> Iterator[list[torch.Tensor]]:
    """Yield batches of arrays of equal length as tensors."""
    for start in range(0, len(inputs[0]) if inputs else 0, batch_size):
        yield [torch.from_numpy(array[start : start + batch_size]).to(device) for array in inputs]


def _optimisers(model: DefectNet, config: FitConfig) -> dict[str, torch.optim.Optimizer]:
    """Return the optimisers; the keys are prefixes of their tensors in a checkpoint."""
    head = [*model.mask_head.parameters()] if model.mask_head else []
    in_head = {id(parameter) for parameter in head}
    others = [each for each in model.parameters() if each.requires_grad and id(each) not in in_head]
    kind = torch.optim.SGD if config.optimiser == "sgd" else torch.optim.AdamW
    optimisers: dict[str, torch.optim.Optimizer] = {"": kind(others, lr=config.lr)}
    if head:
        optimisers["mask_head_"] = torch.optim.AdamW(head, lr=LEARNING_RATE)
    return optimisers


def _train_epoch(
    model: DefectNet,
    optimisers: Mapping[str, torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    forward: Forward,
    labels: Labels,
    masks: Targets | None,
    order: Indices,
    batch_size: int,
    epoch: int,
) -> float:
    """Train one epoch over `order`, and return the mean loss of its images."""
    model.train()
    device = model.mean.device
    batches = np.array_split(order, -(-len(order) // batch_size))
    losses: list[torch.Tensor] = []
    means: list[float] = []
    for step, batch in enumerate(batches, start=1):
        model.zero_grad()
        targets = torch.from_numpy(labels[batch]).float().to(device)
        prediction = forward(batch)
        loss = binary_cross_entropy_with_logits(prediction.logit, targets)
        if prediction.cells is not None:
            assert masks is not None, "a model with a mask head needs masks"
            loss = loss + mask_loss(prediction.cells, torch.from_numpy(masks[batch]).to(device))
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers.values():
            scaler.step(optimiser)
        scaler.update()
        losses.append(loss.detach())
        if len(losses) == READ_EVERY or step == len(batches):
            means += _read(losses, epoch, step, optimisers[""].param_groups[0]["lr"])
            losses.clear()
    return sum(mean * len(batch) for mean, batch in zip(means, batches, strict=True)) / len(order)


def _read(losses: list[torch.Tensor], epoch: int, step: int, lr: float) -> list[float]:
    """Return the losses up to `step` of the epoch as numbers; raise if one is not finite."""
    values: list[float] = torch.stack(losses).tolist()
    for number, value in enumerate(values, start=step - len(values) + 1):
        if not np.isfinite(value):
            raise NonFiniteLossError(
                f"the loss is {value} at epoch {epoch}, step {number}; lower lr (now {lr}) and run it again; the last "
                "finite checkpoint is kept"
            )
    return values


def _reject_non_finite(model: DefectNet, epoch: int) -> None:
    """Raise if a weight is not finite, which the last step can cause without a visible effect on the loss."""
    if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
        raise NonFiniteLossError(
            f"weights are not finite after epoch {epoch}; lower lr and run it again; the last finite checkpoint is kept"
        )


def _save(
    model: DefectNet,
    optimisers: Mapping[str, torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    sampler: FrequencySampler,
    history: list[dict[str, float]],
    checkpoint: Path,
) -> None:
    """Write everything that `_resume` needs."""
    progress = {"history": history, "sampler": sampler.state(), "scaler": scaler.state_dict()}
    tensors = dict(model.state_dict())
    for prefix, optimiser in optimisers.items():
        tensors |= {f"{prefix}{name}": value for name, value in pack_optimiser(optimiser).items()}
    save_checkpoint(checkpoint, Checkpoint(tensors, progress))


def _resume(
    model: DefectNet,
    optimisers: Mapping[str, torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    sampler: FrequencySampler,
    path: Path,
) -> list[dict[str, float]]:
    tensors, progress = load_checkpoint(path)
    scaler.load_state_dict(progress["scaler"])
    for prefix, optimiser in reversed([*optimisers.items()]):
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        rest = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
        tensors = rest | unpack_optimiser(optimiser, own)
    model.load_state_dict(tensors)
    sampler.restore(progress["sampler"])
    history: list[dict[str, Any]] = progress["history"]
    return history
