"""MLproject repeats what the configurations say; here the two are compared."""

from pathlib import Path

import pytest
import yaml

from inandout.__main__ import ALIASES, STAGES

PROJECT = yaml.safe_load((Path(__file__).parents[1] / "MLproject").read_text())


def as_text(default: object) -> str:
    return "none" if default is None else str(default)


def test_entry_points_are_the_stages() -> None:
    assert set(PROJECT["entry_points"]) == set(STAGES) | set(ALIASES)


def test_old_names_of_entry_points_stay() -> None:
    for old, new in {"topup": "extend-pool", "labels": "label-errors", "probe": "probe-shortcut"}.items():
        assert ALIASES[old] == new
        assert PROJECT["entry_points"][old] == PROJECT["entry_points"][new]


@pytest.mark.parametrize("name", STAGES)
def test_parameters_and_defaults_are_the_fields_of_the_configuration(name: str) -> None:
    parameters = PROJECT["entry_points"][name]["parameters"]
    fields = STAGES[name].config.model_fields
    assert {key: str(value["default"]) for key, value in parameters.items()} == {
        key: as_text(field.default) for key, field in fields.items()
    }


@pytest.mark.parametrize("name", STAGES)
def test_types_are_those_of_the_configuration(name: str) -> None:
    parameters = PROJECT["entry_points"][name]["parameters"]
    fields = STAGES[name].config.model_fields
    numbers = {key for key, field in fields.items() if field.annotation in (int, float)}
    assert {key for key, value in parameters.items() if value["type"] == "float"} == numbers


@pytest.mark.parametrize("name", STAGES)
def test_the_command_passes_every_parameter(name: str) -> None:
    command = PROJECT["entry_points"][name]["command"]
    expected = " ".join(f"--{key}={{{key}}}" for key in PROJECT["entry_points"][name]["parameters"])
    assert command.split() == f"python -m inandout {name} {expected}".split()
