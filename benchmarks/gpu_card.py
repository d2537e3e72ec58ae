"""Facts, matrix rate and bandwidth of the GPU, and measurement of time and memory.

Without a GPU, the functions measure the CPU.
"""

import gc
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from inandout.diffusion.finetune.dreambooth import build_optimiser

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PACKAGES = (
    "torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors", "numpy",
)  # fmt: skip


CONTEXT = 0.6e9
"""Bytes that CUDA uses on the card in addition to PyTorch's tensors."""


def synchronise() -> None:
    """Wait until the GPU has finished all queued work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def free_memory() -> None:
    """Free unused memory and reset the peak."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, float]:
    """Return the peak since `free_memory` in GB: of tensors, and reserved by PyTorch; empty on a CPU."""
    if DEVICE.type != "cuda":
        return {}
    return {
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2),
    }


@contextmanager
def memory_limit(gigabytes: int) -> Iterator[None]:
    """Simulate a card with less memory; 0 = no limit."""
    if not gigabytes or DEVICE.type != "cuda":
        yield
        return
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((gigabytes * 1e9 - CONTEXT) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


class Steps:
    """Timer of steps; call it at the end of each step. The first `warm_up` steps are excluded."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up, self.times = warm_up, [time.perf_counter()]

    def __call__(self) -> None:
        """Record the end of a step."""
        synchronise()
        self.times.append(time.perf_counter())

    def result(self) -> dict[str, float]:
        """Return steps per second (median), and the fastest and slowest step in ms."""
        seconds = [after - before for before, after in zip(self.times, self.times[1:], strict=False)][self.warm_up :]
        return {
            "per_second": round(1 / statistics.median(seconds), 4),
            "fastest_ms": round(1000 * min(seconds), 1),
            "slowest_ms": round(1000 * max(seconds), 1),
            "steps": len(seconds),
        }


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of `repeats` calls, after two warm-up calls."""
    steps = Steps(warm_up=2)
    for _ in range(repeats + 2):
        work()
        steps()
    return 1 / steps.result()["per_second"]


def why_no_8bit() -> str:
    """Return why AdamW8bit of bitsandbytes does not work; empty if it works."""
    if DEVICE.type != "cuda":
        return "8-bit AdamW needs a GPU"
    try:
        weight = torch.nn.Parameter(torch.zeros(8192, device=DEVICE))
        weight.grad = torch.ones_like(weight)
        build_optimiser([weight], 1e-4, "adamw8bit").step()
    except Exception as error:  # a missing library or kernel raises various errors
        return f"{type(error).__name__}: {error}"[:500]
    return ""


@contextmanager
def tf32(products: bool, convolutions: bool) -> Iterator[None]:
    """Allow TF32 in fp32 matrix products and convolutions. PyTorch allows it in convolutions only by default."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = products, convolutions
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def facts() -> dict[str, Any]:
    """Return device, driver and versions of libraries."""
    found: dict[str, Any] = {"device": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    if DEVICE.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1),
            "multiprocessors": properties.multi_processor_count, "driver": _driver(), "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }  # fmt: skip
    return found | {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split("\n")[0]
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def matrix_rate(side: int, precision: str) -> float:
    """Return TFLOP/s of a product of random square matrices in `fp32`, `tf32`, `fp16` or `bf16`."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    a, b = (torch.randn(side, side, device=DEVICE).to(dtype) for _ in range(2))
    with tf32(products=precision == "tf32", convolutions=False):
        return round(2 * side**3 / seconds_of(lambda: a @ b, 10) / 1e12, 3)


def copy_bandwidth(count: int) -> float:
    """Return GB/s, read and written, of a copy of `count` fp32 numbers on the device."""
    source = torch.randn(count, device=DEVICE)
    target = torch.empty_like(source)
    return round(2 * 4 * count / seconds_of(lambda: target.copy_(source), 10) / 1e9, 1)
