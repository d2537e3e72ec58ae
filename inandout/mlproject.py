"""Generate the file `MLproject` from the configurations of the entry points."""

import json
import re
import textwrap
from collections.abc import Mapping

from pydantic.fields import FieldInfo

from inandout.options import StageConfig

_HEAD = """\
# Written by `python -m inandout mlproject --out MLproject` from the configurations; a test compares.
name: inandout

conda_env: conda.yaml

entry_points:
"""
_PLAIN = re.compile(r"[a-z][\w .-]*")
"""Strings that YAML reads as strings without quotation marks."""


def mlproject(entry_points: Mapping[str, type[StageConfig]], aliases: Mapping[str, str]) -> str:
    """Return the content of the file.

    Options that are empty or none by default are no parameters of the file, although `mlflow run -P` passes them on:
    MLflow would log their default before the entry point starts, and the run could not log the value that it uses.

    Args:
        entry_points: name to configuration.
        aliases: old name of an entry point to its name.
    """
    entries = [_entry_point(name, config, name in aliases.values()) for name, config in entry_points.items()]
    old_names = ["  # Old names.", *(f"  {old}: *{new}" for old, new in aliases.items()), ""]
    return _HEAD + "\n".join([*entries, *old_names])


def _entry_point(name: str, config: type[StageConfig], has_alias: bool) -> str:
    options = {key: option for key, option in config.options().items() if option.field.default not in (None, "")}
    without = ", ".join(sorted(config.options().keys() - options.keys()))
    lines = [f"  {name}:{f' &{name}' if has_alias else ''}"]
    lines += _wrap(f"Also accepted, empty or none by default: {without}", "    # ") if without else []
    lines.append("    parameters:")
    lines += [f"      {key}: {_parameter(option.field)}" for key, option in options.items()]
    command = " ".join([f"python -m inandout {name}", *(f"--{key}={{{key}}}" for key in options)])
    return "\n".join([*lines, "    command: >-", *_wrap(command, " " * 6), ""])


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, 120, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _parameter(field: FieldInfo) -> str:
    """Return the parameter of an option. MLflow has numbers and strings."""
    kind = "float" if field.annotation in (int, float) else "string"
    return f"{{type: {kind}, default: {_default(field.default)}}}"


def _default(value: object) -> str:
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return json.dumps(value)
    return str(value)
