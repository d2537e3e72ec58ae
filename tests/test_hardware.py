"""Devices and precisions, with and without a (simulated) GPU, and errors of memory."""

import multiprocessing
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from inandout.errors import InputError
from inandout.hardware import HardwareConfig, OutOfMemoryError, explain_memory, find_device, is_out_of_memory
from inandout.parallel import take_gpu


def simulate(monkeypatch: pytest.MonkeyPatch, gpus: int, bf16: bool = True) -> list[Any]:
    """Let PyTorch report GPUs; return a list of the devices that were made current."""
    current: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return current


@pytest.mark.parametrize(
    ("gpus", "bf16", "given", "expected"),
    [
        (0, False, {}, ("cpu", "fp32")),
        (0, False, {"precision": "fp32"}, ("cpu", "fp32")),
        (1, True, {}, ("cuda", "bf16")),
        (1, False, {}, ("cuda", "fp16")),
        (1, True, {"precision": "fp16"}, ("cuda", "fp16")),
        (1, True, {"device": "cpu"}, ("cpu", "fp32")),
        (2, True, {"device": "cuda:1", "precision": "fp32"}, ("cuda:1", "fp32")),
    ],
)
def test_auto_is_what_the_hardware_does_well(
    monkeypatch: pytest.MonkeyPatch, gpus: int, bf16: bool, given: dict[str, str], expected: tuple[str, str]
) -> None:
    simulate(monkeypatch, gpus, bf16)
    hardware = HardwareConfig.model_validate(given).open()
    assert (str(hardware.device), hardware.precision) == expected


def test_a_numbered_gpu_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current = simulate(monkeypatch, 4)
    find_device("cuda")
    assert current == []
    find_device("cuda:3")
    assert current == [torch.device("cuda:3")]


def test_workers_take_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    started = multiprocessing.Value("i", 0)
    current = simulate(monkeypatch, 3)
    for _ in range(5):
        take_gpu(started)
    assert current == [0, 1, 2, 0, 1]
    current = simulate(monkeypatch, 0)
    take_gpu(started)
    assert current == []


@pytest.mark.parametrize(
    ("gpus", "given", "message"),
    [
        (0, {"device": "cuda"}, "device = cuda: PyTorch finds no CUDA GPU; give device=cpu"),
        (2, {"device": "cuda:2"}, "device = cuda:2: there are 2 GPUs; give cuda:0 to cuda:1"),
        (0, {"device": "mps"}, "device = mps: PyTorch finds no Apple GPU; give device=cpu"),
        (0, {"precision": "bf16"}, "precision = bf16: needs a CUDA GPU.*use fp32"),
        (1, {"precision": "bf16"}, "precision = bf16: this GPU only emulates it; use fp16"),
    ],
)
def test_what_is_not_available_is_an_error_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, gpus: int, given: dict[str, str], message: str
) -> None:
    simulate(monkeypatch, gpus, bf16=False)
    with pytest.raises(InputError, match=message):
        HardwareConfig.model_validate(given).open()


@pytest.mark.parametrize("given", [{"device": "gpu"}, {"device": "cuda:x"}, {"precision": "fp8"}])
def test_other_names_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        HardwareConfig.model_validate(given)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory_are_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_real_allocations_that_fail_are_recognised() -> None:
    for allocate in (lambda: torch.empty(2**55, dtype=torch.uint8), lambda: np.empty(2**55, np.uint8)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert is_out_of_memory(caught.value)


def test_the_sentence_says_what_to_change_and_passes_between_processes() -> None:
    error = explain_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"))
    copied = pickle.loads(pickle.dumps(error))
    assert isinstance(copied, OutOfMemoryError)
    assert str(copied) == str(error)
    assert "Tried to allocate 20.00 GiB" in str(error) and "sample_batch" in str(error)
