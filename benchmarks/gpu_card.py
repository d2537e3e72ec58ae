"""The card: what it is, how fast it multiplies and copies, and how time and memory are measured on it.

Without a GPU the same functions measure the CPU, so that the other parts run there.
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

from inandout.diffusion.dreambooth import build_optimiser

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PACKAGES = (
    "torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors", "numpy",
)  # fmt: skip


def synchronise() -> None:
    """Wait until the GPU has done what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def free_memory() -> None:
    """Give unused memory back, and begin to measure the peak anew."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, float]:
    """GB of tensors at the peak since `free_memory`, and of what PyTorch held for them; empty on a CPU."""
    if DEVICE.type != "cuda":
        return {}
    return {
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2),
    }


class Steps:
    """Seconds of every step: call it when a step ends. The first `warm_up` steps do not count."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up, self.times = warm_up, [time.perf_counter()]

    def __call__(self) -> None:
        """A step has ended."""
        synchronise()
        self.times.append(time.perf_counter())

    def result(self) -> dict[str, float]:
        """Steps a second by the median step, the slowest and fastest steps in ms."""
        seconds = [after - before for before, after in zip(self.times, self.times[1:], strict=False)][self.warm_up :]
        return {
            "per_second": round(1 / statistics.median(seconds), 4),
            "fastest_ms": round(1000 * min(seconds), 1),
            "slowest_ms": round(1000 * max(seconds), 1),
            "steps": len(seconds),
        }


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """Seconds of one call, from the median of `repeats` calls after two to warm up."""
    steps = Steps(warm_up=2)
    for _ in range(repeats + 2):
        work()
        steps()
    return 1 / steps.result()["per_second"]


def why_no_8bit() -> str:
    """Empty where AdamW8bit of bitsandbytes works."""
    if DEVICE.type != "cuda":
        return "8-bit AdamW needs a GPU"
    try:
        weight = torch.nn.Parameter(torch.zeros(8192, device=DEVICE))
        weight.grad = torch.ones_like(weight)
        build_optimiser([weight], 1e-4, "adamw8bit").step()
    except Exception as error:  # a missing library or kernel shows itself in many ways
        return f"{type(error).__name__}: {error}"[:500]
    return ""


@contextmanager
def tf32(products: bool, convolutions: bool) -> Iterator[None]:
    """Within, fp32 products and convolutions may be computed in TF32. PyTorch's default is: convolutions only."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = products, convolutions
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def facts() -> dict[str, Any]:
    """The device, its driver and the versions."""
    found: dict[str, Any] = {"device": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    if DEVICE.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1),
            "multiprocessors": properties.multi_processor_count, "driver": _driver(), "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
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
    """TFLOP/s of a square matrix product of random numbers: `fp32`, `tf32`, `fp16` or `bf16`."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    a, b = (torch.randn(side, side, device=DEVICE).to(dtype) for _ in range(2))
    with tf32(products=precision == "tf32", convolutions=False):
        return round(2 * side**3 / seconds_of(lambda: a @ b, 10) / 1e12, 3)


def copy_bandwidth(count: int) -> float:
    """GB/s of a copy on the device of `count` fp32 numbers, read and written."""
    source = torch.randn(count, device=DEVICE)
    target = torch.empty_like(source)
    return round(2 * 4 * count / seconds_of(lambda: target.copy_(source), 10) / 1e9, 1)
