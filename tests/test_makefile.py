"""The variables of the Makefile; nothing is installed or run."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is missing")


def commands(*arguments: str) -> str:
    return subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("venv", ["{folder}/other", "other-venv"])
def test_the_environment_may_have_an_absolute_path(venv: str, tmp_path: Path) -> None:
    name = venv.format(folder=tmp_path)
    text = commands("demo", f"VENV={name}")
    assert f'PATH="{ROOT / name}/bin:$PATH" {name}/bin/mlflow run .' in text
    assert f"-m venv {name}" in text
    assert ".venv" not in text


def test_python_can_be_chosen() -> None:
    assert "python3.12 -m venv" in commands("demo", "PYTHON=python3.12", "VENV=none")


@pytest.mark.parametrize("target", ["help", "test", "test-fast", "torture", "docs", "clean"])
def test_every_target_is_described(target: str) -> None:
    assert commands(target, "VENV=none")
    assert f"make {target}" in commands("help") or target == "help"
