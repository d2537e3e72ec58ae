"""Checkpoints on systems that flush only writable files and cannot replace mapped ones, such as Windows."""

import os
from pathlib import Path

import pytest
import torch

from inandout.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def test_a_file_is_open_for_writing_when_it_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr("os.fsync", lambda descriptor: flushed.append(os.write(descriptor, b"")))
    save_checkpoint(tmp_path / "a.safetensors", Checkpoint({"a": torch.ones(3)}, {"epoch": 1}))
    assert flushed == [0]


def test_loaded_weights_do_not_map_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, Checkpoint({"a": torch.arange(1000.0)}, {"epoch": 1}))
    weights, _ = load_checkpoint(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(weights["a"], torch.arange(1000.0))
