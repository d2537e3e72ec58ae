"""`MLproject` equals the output of `python -m inandout mlproject`."""

from pathlib import Path

import pytest
import yaml

from inandout.__main__ import main
from inandout.entry_points import ALIASES, STAGES

FILE = Path(__file__).parents[1] / "MLproject"
PROJECT = yaml.safe_load(FILE.read_text())


def test_the_file_equals_the_generated_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["mlproject"], ["mlproject", "--out", str(tmp_path / "MLproject")]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
    hint = "write it with: python -m inandout mlproject --out MLproject"
    assert capsys.readouterr().out == (tmp_path / "MLproject").read_text() == FILE.read_text(), hint


def test_entry_points_are_the_stages() -> None:
    assert list(PROJECT["entry_points"]) == [*STAGES, *ALIASES]


def test_old_names_of_entry_points_remain() -> None:
    assert ALIASES == {"topup": "extend-pool", "labels": "label-errors", "probe": "probe-shortcut"}
    for old, new in ALIASES.items():
        assert PROJECT["entry_points"][old] == PROJECT["entry_points"][new]


@pytest.mark.parametrize("name", STAGES)
def test_yaml_reads_every_default_unchanged(name: str) -> None:
    parameters = PROJECT["entry_points"][name]["parameters"]
    assert {key: str(value["default"]) for key, value in parameters.items()} == {
        key: str(option.field.default)
        for key, option in STAGES[name].config.options().items()
        if option.field.default not in (None, "")
    }


def test_numbers_are_floats_and_other_options_strings() -> None:
    parameters = PROJECT["entry_points"]["classify"]["parameters"]
    kinds = {name: parameters[name]["type"] for name in ("n_aug", "lr", "reviewed", "shot")}
    assert kinds == {"n_aug": "float", "lr": "float", "reviewed": "string", "shot": "string"}


def test_options_that_a_run_resolves_are_accepted_but_no_parameters() -> None:
    """MLflow logs parameters before the run resolves them, and a logged parameter cannot change."""
    parameters = PROJECT["entry_points"]["classify"]["parameters"]
    assert not {"alpha", "guidance", "training_seed", "ddpm_pool"} & parameters.keys()
    assert "# Also accepted, empty or none by default: alpha," in FILE.read_text()


@pytest.mark.parametrize("name", STAGES)
def test_the_command_passes_every_parameter(name: str) -> None:
    command = PROJECT["entry_points"][name]["command"]
    expected = " ".join(f"--{key}={{{key}}}" for key in PROJECT["entry_points"][name]["parameters"])
    assert command.split() == f"python -m inandout {name} {expected}".split()
