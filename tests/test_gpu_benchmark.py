"""`benchmarks/gpu.py` at toy size on a CPU, so that it is known to work before a GPU is at hand."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.gpu import PARTS
from benchmarks.gpu_drawing import WAYS
from benchmarks.gpu_shapes import TEXT, UNET, VAE, XL_TEXT, XL_UNET

pytestmark = pytest.mark.slow  # fine-tunes at toy size

ROOT = Path(__file__).parents[1]
BLOCKED = ["mlflow", "optuna", "click", "sqlalchemy", "matplotlib", "pandas", "onnxruntime", "fastapi", "ray"]
RUN_BLOCKED = f"""
import runpy, sys

sys.modules.update(dict.fromkeys({BLOCKED}))  # so that importing one of them fails
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes, where none of `BLOCKED` can be imported."""
    folder = tmp_path_factory.mktemp("gpu")
    subprocess.run(
        [sys.executable, "-c", RUN_BLOCKED, "--out", str(folder), "--size", "toy"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, cwd=ROOT, check=True, timeout=600,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def rows(out: Path) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads((out / "gpu.json").read_text())["rows"]
    return told


@pytest.mark.torture
def test_nothing_fails_and_nothing_is_left_out(rows: list[dict[str, Any]]) -> None:
    assert [row for row in rows if "error" in row] == []
    assert [row["case"] for row in rows if "skipped" in row] == []
    for part in ("small cards", "SDXL"):
        cases = [row["case"] for row in rows if row["part"] == part]
        assert any("checkpointing" in case for case in cases) and any("drawing" in case for case in cases)


@pytest.mark.torture
def test_every_part_has_a_result(rows: list[dict[str, Any]]) -> None:
    assert {row["part"] for row in rows} == {"card", *PARTS}
    for part in ("fine-tuning", "drawing", "classifier"):
        measured = [row for row in rows if row["part"] == part and "per_second" in row]
        assert {row["way"] for row in measured} == (set(WAYS) if part == "drawing" else {"ours", "bare"})
        assert all(row["per_second"] > 0 for row in measured)
        assert any("times_bare" in row for row in measured)


@pytest.mark.torture
def test_parity_holds_between_two_processes(rows: list[dict[str, Any]]) -> None:
    parity = {row["case"]: row for row in rows if row["part"] == "parity"}
    assert [row["within"] for row in parity.values() if "within" in row] == [True] * 3
    if not torch.cuda.is_available():
        assert parity["stopped and resumed, adamw"]["bit_for_bit"]


@pytest.mark.torture
def test_files_are_few_and_small(out: Path, rows: list[dict[str, Any]]) -> None:
    assert sorted(path.name for path in out.iterdir()) == ["gpu.json", "gpu.md", "parity.png"]
    assert sum(path.stat().st_size for path in out.iterdir()) < 10e6
    table = (out / "gpu.md").read_text()
    assert all(f"| {row['case']} |" in table for row in rows)
    assert np.asarray(Image.open(out / "parity.png")).std() > 5


def test_the_shape_is_that_of_stable_diffusion() -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        models = (
            UNet2DConditionModel(**UNET), CLIPTextModel(CLIPTextConfig(**TEXT)), AutoencoderKL(**VAE),
            UNet2DConditionModel(**XL_UNET), CLIPTextModelWithProjection(CLIPTextConfig(**XL_TEXT)),
        )  # fmt: skip
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in models]
    assert counts == [859_520_964, 123_060_480, 83_653_863, 2_567_463_684, 694_659_840]


def test_a_measurement_without_time_is_left_out_and_one_that_fails_is_recorded(tmp_path: Path) -> None:
    from benchmarks.gpu import Report, Row, run

    def fails() -> dict[str, Any]:
        raise RuntimeError("no kernel")

    report = Report(tmp_path, {"device": "toy"})
    rows = [Row("part", "fails", "", 0, fails), Row("part", "long", "", 1e9, dict), Row("part", "short", "", 0, dict)]
    run(rows, report, end=float("inf"), toy=False)
    run(rows[1:2], report, end=0.0, toy=False)
    told = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert told[0]["error"] == "RuntimeError: no kernel" and "Traceback" in told[0]["traceback"]
    assert ["skipped" in row for row in told] == [False, False, False, True]
