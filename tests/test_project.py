"""`mlflow run` on the project."""

import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import mlflow
import pytest
import yaml

ROOT = Path(__file__).parents[1]


def mlflow_run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_an_entry_point_accepts_odd_spellings_and_opens_the_run_of_its_stage(tiny: Path, project: Path) -> None:
    done = mlflow_run(
        "--experiment-name", "inandout", "-e", "augment", "-P", f"data={tiny}", "-P", "n_aug=2", "-P", "width=32",
        "-P", "height=32", "-P", "max_area=.50",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FINISHED"
    assert run.data.tags["inandout.stage"] == "augment"
    assert run.data.params["max_area"] == ".50", "unchanged from the command line"
    assert run.data.params["grid"] == "8"


@pytest.mark.slow
def test_the_parameters_of_a_run_are_the_values_that_it_uses(tiny: Path, tiny_base: Path, project: Path) -> None:
    done = mlflow_run(
        "--experiment-name", "inandout", "-e", "augment", "-P", f"data={tiny}", "-P", "n_aug=1", "-P", "width=32",
        "-P", "height=32", "-P", "source=inpaint", "-P", f"base={tiny_base}", "-P", "adapter=none", "-P", "steps=02",
        "-P", "prompts=a crack",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    found = {name: run.data.params[name] for name in ("guidance", "guidance_mode", "steps", "prompts")}
    assert found == {"guidance": "3.0", "guidance_mode": "plain", "steps": "02", "prompts": "'a crack'"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameter", "expected"),
    [("ddpm_ratio=1.5", "Input should be less than or equal to 1"), ("ratio=1", "No such option '--ratio'")],
)
def test_an_invalid_parameter_prints_a_sentence_and_fails_the_run(project: Path, parameter: str, expected: str) -> None:
    done = mlflow_run("--experiment-name", "inandout", "-e", "classify", "-P", parameter)
    assert done.returncode != 0
    assert expected in done.stderr
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.info.status == "FAILED"


def test_the_conda_environment_contains_the_lock_and_the_package() -> None:
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    lock = hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()[:16]
    assert f"# {lock}\n" in (ROOT / "conda.yaml").read_text(), f"write {lock} into conda.yaml"


def test_the_lock_pins_every_dependency_without_urls() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all("==" in line and "://" not in line and "--" not in line for line in lines)
    locked = {line.partition("==")[0] for line in lines}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {entry.split(">")[0] for entry in declared} <= locked
