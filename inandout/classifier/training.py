"""Training and prediction of the classifier, independent of dataset files and MLflow."""

from collections.abc import Callable
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
from inandout.classifier.backbone import DefectNet
from inandout.classifier.config import FitConfig
from inandout.classifier.features import compute_logits, evaluate_batches, features, to_tensor
from inandout.classifier.frequency_sampler import FrequencySampler, Indices
from inandout.classifier.pixels import Pixels
from inandout.hardware import Precision

Logits = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Forward = Callable[[Indices], torch.Tensor]
"""Maps indices (B,) of training images to logits (B,)."""
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
        checkpoint: written after every epoch. If the file exists, training resumes from it, with bit-identical final
            weights on the same machine with the same number of threads.
        precision: of the products and convolutions (autocast); weights and last layer stay in fp32.
        on_epoch: called with the epoch and `loss`, the mean over its images.

    Returns:
        The values of all epochs, including those before a resume.

    Raises:
        NonFiniteLossError: the loss or a weight is not finite; the checkpoint of the previous epoch is kept.
    """
    model.to(memory_format=torch.channels_last)
    sampler = FrequencySampler(labels, seed, every_epoch)
    torch_optimiser = (torch.optim.SGD if config.optimiser == "sgd" else torch.optim.AdamW)(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=config.lr
    )
    scaler = torch.amp.GradScaler(model.mean.device.type, enabled=precision == "fp16")
    history: list[dict[str, float]] = []
    if checkpoint is not None and checkpoint.exists():
        history = _resume(model, torch_optimiser, scaler, sampler, checkpoint)
    forward = _forward(model, pixels, precision)
    for epoch, values in enumerate(history, start=1):
        on_epoch(epoch, values)
    for epoch in tqdm(
        range(len(history) + 1, config.epochs + 1), "train", total=config.epochs, initial=len(history), unit="epoch",
        disable=None,
    ):  # fmt: skip
        loss = _train_epoch(model, torch_optimiser, scaler, forward, labels, sampler.epoch(), config.batch_size, epoch)
        _reject_non_finite(model, epoch)
        history.append({"loss": loss})
        on_epoch(epoch, history[-1])
        if checkpoint is not None:
            progress = {"history": history, "sampler": sampler.state(), "scaler": scaler.state_dict()}
            tensors = dict(model.state_dict()) | pack_optimiser(torch_optimiser)
            save_checkpoint(checkpoint, Checkpoint(tensors, progress))
    return history


def predict(model: DefectNet, pixels: Pixels, batch_size: int = 32, precision: Precision = "fp32") -> Logits:
    """Return defect logits (N,) in evaluation mode; the mode of the model is restored afterwards."""
    batches = evaluate_batches(model, lambda images: compute_logits(model, images, precision), pixels, batch_size)
    return np.concatenate([np.empty(0), *(batch.double().cpu().numpy() for batch in batches)])


def predictor(model: DefectNet, pixels: Pixels, precision: Precision = "fp32") -> Callable[[], Logits]:
    """Return a function that predicts `pixels` (N, H, W, 3) as `predict` does with the weights at the time of the call.

    The features of a frozen backbone are computed once.
    """
    if model.freeze != "all":
        return lambda: predict(model, pixels, precision=precision)
    forward, every = _forward(model, pixels, precision), np.arange(len(pixels))
    return lambda: forward(every).detach().double().cpu().numpy()


def _forward(model: DefectNet, pixels: Pixels, precision: Precision) -> Forward:
    """Return the forward pass of training; the features of a frozen backbone are computed once."""
    device = model.mean.device
    if model.freeze != "all":
        return lambda batch: compute_logits(model, to_tensor(pixels[batch], device), precision)
    frozen = torch.from_numpy(features(model, pixels)).to(device)
    return lambda batch: model.logits(frozen[torch.from_numpy(batch).to(device)])


def _train_epoch(
    model: DefectNet,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    forward: Forward,
    labels: Labels,
    order: Indices,
    batch_size: int,
    epoch: int,
) -> float:
    """Train one epoch over `order`, and return the mean loss of its images."""
    model.train()
    device, total = model.mean.device, 0.0
    for step, batch in enumerate(np.array_split(order, -(-len(order) // batch_size)), start=1):
        optimiser.zero_grad()
        targets = torch.from_numpy(labels[batch]).float().to(device)
        loss = binary_cross_entropy_with_logits(forward(batch), targets)
        value = loss.item()
        if not np.isfinite(value):
            raise NonFiniteLossError(
                f"the loss is {value} at epoch {epoch}, step {step}; lower lr (now {optimiser.param_groups[0]['lr']}) "
                "and run it again; the last finite checkpoint is kept"
            )
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimiser)
        scaler.update()
        total += value * len(batch)
    return total / len(order)


def _reject_non_finite(model: DefectNet, epoch: int) -> None:
    """Raise if a weight is not finite, which the last step can cause without a visible effect on the loss."""
    if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
        raise NonFiniteLossError(
            f"weights are not finite after epoch {epoch}; lower lr and run it again; the last finite checkpoint is kept"
        )


def _resume(
    model: DefectNet,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    sampler: FrequencySampler,
    path: Path,
) -> list[dict[str, float]]:
    tensors, progress = load_checkpoint(path)
    scaler.load_state_dict(progress["scaler"])
    model.load_state_dict(unpack_optimiser(optimiser, tensors))
    sampler.restore(progress["sampler"])
    history: list[dict[str, Any]] = progress["history"]
    return history
