"""Training of ResNet-50 at 200x600: `fit` against a bare loop, and against the limit by the card's matrix rate.

The bare loop copies the same uint8 batches to the device, computes loss and gradient, and takes a step of SGD:
channels-last, without any check. TF32 is set around both; autocast is an option of `fit`, and set around the bare loop.
`limit` is the number of steps per second if only matrix products took time, at the measured rate of a large product.
"""

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_card import DEVICE, free_memory, peak_memory, synchronise, tf32
from benchmarks.gpu_shapes import Size, random_images
from inandout.classifier.backbone import DefectNet, build_classifier
from inandout.classifier.config import Backbone, BackboneConfig, FitConfig
from inandout.classifier.training import fit

SETTINGS = {
    "default": (False, True, False), "bf16": (True, True, True), "fp32": (False, False, False),
    "tf32": (True, True, False),
}  # fmt: skip
"""Setting to: TF32 in products, TF32 in convolutions, autocast to bf16. `default` is PyTorch's default."""
_RATES = {"default": "tf32", "bf16": "bf16", "fp32": "fp32", "tf32": "tf32"}
LR = 0.01


def train(
    size: Size, way: str, setting: str, batch: int, rates: Mapping[str, float], *, compiled: bool = False
) -> dict[str, Any]:  # fmt: skip
    """Return steps per second, share of the limit, and peak memory."""
    free_memory()
    model = build_classifier(BackboneConfig(backbone=size.backbone), 0).to(DEVICE).to(memory_format=torch.channels_last)
    products, convolutions, autocast = SETTINGS[setting]
    with tf32(products, convolutions):
        measure = _fit if way == "ours" else _bare
        result = measure(model, size, batch, autocast, compiled)
    flops = step_flops(size.backbone, size.parts, batch)
    result |= {"batch": batch, "gflop_a_step": round(flops / 1e9, 1)} | peak_memory()
    if rate := rates.get(_RATES[setting]):
        limit = rate * 1e12 / flops
        result |= {"limit": round(limit, 2), "share_of_limit": round(float(result["per_second"]) / limit, 3)}
    return result


def _fit(model: DefectNet, size: Size, batch: int, autocast: bool, compiled: bool) -> dict[str, Any]:
    """Measure the faster of two epochs of `fit`, after a warm-up epoch.

    `fit` always compiles with inductor, so at toy size, which has another compiler, it does not compile.
    """
    count = size.part_steps * batch
    ends: list[float] = []

    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        synchronise()
        ends.append(time.perf_counter())

    pixels, labels = random_images(count, *size.parts), np.arange(count) % 2
    compiled = compiled and size.compiler == "inductor"
    config = FitConfig(epochs=3, batch_size=batch, optimiser="sgd", lr=LR, compile=compiled)
    fit(model, pixels, labels, config, seed=0, precision="bf16" if autocast else "fp32", on_epoch=on_epoch)
    seconds = min(np.diff(ends)) / size.part_steps
    return {"per_second": round(1 / seconds, 2), "steps": 2 * size.part_steps}


def _bare(model: DefectNet, size: Size, batch: int, autocast: bool, compiled: bool) -> dict[str, Any]:
    """Measure as many steps as in `_fit`; the bare loop never reads the loss."""
    count = size.part_steps * batch
    pixels, labels = random_images(count, *size.parts), torch.arange(count) % 2
    optimiser = torch.optim.SGD(model.train().parameters(), lr=LR)
    forward = torch.compile(model, backend=size.compiler) if compiled else model
    ends: list[float] = []
    for _ in range(3):
        for start in range(0, count, batch):
            optimiser.zero_grad()
            images = torch.from_numpy(pixels[start : start + batch]).to(DEVICE).permute(0, 3, 1, 2)
            targets = labels[start : start + batch].float().to(DEVICE)
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
                loss = binary_cross_entropy_with_logits(forward(images), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        synchronise()
        ends.append(time.perf_counter())
    seconds = min(np.diff(ends)) / size.part_steps
    return {"per_second": round(1 / seconds, 2), "steps": 2 * size.part_steps}


@cache
def step_flops(backbone: Backbone, parts: tuple[int, int], batch: int) -> int:
    """Return the floating-point operations of products in the forward and backward pass of a step."""
    with torch.device("meta"):
        model = DefectNet(backbone).train()
        images = torch.empty(batch, 3, *parts, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return int(counter.get_total_flops())
