"""Options from a file or from a run, for `--config`."""

import os
from pathlib import Path
from typing import Any

from inandout.errors import InputError, brief, did_you_mean
from inandout.files import require_regular
from inandout.options import StageConfig

RUN = "run:"
"""Prefix of a run id in `--config`."""


def read_options(source: str, command: str, config: type[StageConfig]) -> dict[str, Any]:
    """Read options of a command.

    Args:
        source: YAML or JSON file that maps names of options to values, or `run:<id>` for the `config.json` of a run.
        command: name of the command, for error messages.
        config: its configuration.

    Raises:
        InputError: the source cannot be read, or has a key that is not an option of the command.
    """
    if "MLFLOW_RUN_ID" in os.environ:
        raise InputError(
            f"config = {source}: `mlflow run` passes every option, so a file has no effect; use "
            f"python -m inandout {command} --config {source}"
        )
    values = _of_run(source.removeprefix(RUN), config) if source.startswith(RUN) else _of_file(Path(source))
    names = {str(name).replace("-", "_"): value for name, value in values.items()}
    for name in names:
        if name not in config.options():
            raise InputError(
                f"config = {source}: {command} has no option {name!r}{did_you_mean(name, config.options())}"
            )
    return names


def _of_file(path: Path) -> dict[Any, Any]:
    import yaml

    require_regular(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"config = {path}: cannot be read as YAML ({brief(error)}); give another file") from error
    if not isinstance(values, dict):
        raise InputError(f"config = {path}: does not map options to values; write lines such as epochs: 5")
    return values


def _of_run(run_id: str, config: type[StageConfig]) -> dict[str, Any]:
    from inandout.tracking.runs import read_config

    values = read_config(run_id)
    if "data" not in config.options():
        values.pop("data", None)  # every run logs its dataset
    return values
