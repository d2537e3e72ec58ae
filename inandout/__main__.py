"""`python -m inandout <stage> [options]`: the only module that reads the command line."""

import json
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import click
from pydantic import BaseModel, ValidationError

from inandout.errors import InputError
from inandout.stages.augment import AugmentConfig, augment
from inandout.stages.classify import ClassifyConfig, classify
from inandout.stages.compare import CompareConfig, compare
from inandout.stages.data import CheckConfig, DownloadConfig, MakeSurfacesConfig, check, download, surfaces
from inandout.stages.finetune import FinetuneConfig, finetune
from inandout.stages.pretrain import PretrainConfig, pretrain
from inandout.stages.review import ReviewConfig, review


class Stage(NamedTuple):
    """An entry point: its options are the fields of `config`."""

    config: type[BaseModel]
    run: Callable[[Any], object]


STAGES = {
    "main": Stage(CompareConfig, compare),
    "check": Stage(CheckConfig, check),
    "surfaces": Stage(MakeSurfacesConfig, surfaces),
    "download": Stage(DownloadConfig, download),
    "pretrain": Stage(PretrainConfig, pretrain),
    "finetune": Stage(FinetuneConfig, finetune),
    "augment": Stage(AugmentConfig, augment),
    "review": Stage(ReviewConfig, review),
    "classify": Stage(ClassifyConfig, classify),
}
"""Every entry point of MLproject, which repeats their fields and defaults; a test compares."""


def build_command(name: str, stage: Stage) -> click.Command:
    """The command of one stage: an option a field, and `--dry-run`."""

    def call(dry_run: str, **given: str | None) -> None:
        config = _parse(stage.config, {key: value for key, value in given.items() if value is not None})
        if dry_run == "true":
            click.echo(json.dumps(config.model_dump(mode="json"), indent=2))
        else:
            stage.run(config)

    options: list[click.Parameter] = [_option(stage.config, field) for field in stage.config.model_fields]
    options.append(
        click.Option(
            ["--dry-run", "--dry_run", "dry_run"], type=click.Choice(["true", "false"]), default="false",
            is_flag=False, flag_value="true", help="print the resolved configuration and stop",
        )
    )  # fmt: skip
    return click.Command(name, callback=call, params=options, help=stage.run.__doc__)


def _option(config: type[BaseModel], name: str) -> click.Option:
    """Values stay text here: the configuration checks types and ranges, in one place."""
    field = config.model_fields[name]
    limits = [(symbol, getattr(limit, key, None)) for limit in field.metadata for key, symbol in _BOUNDS.items()]
    bounds = [f"{symbol} {value}" for symbol, value in limits if value is not None]
    note = ", ".join([*bounds, f"default {'none' if field.default in (None, '') else field.default}"])
    spellings = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
    return click.Option([*spellings, name], help=f"{field.description} [{note}]")


_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _parse(config: type[BaseModel], given: dict[str, str]) -> BaseModel:
    optional = {name for name, field in config.model_fields.items() if field.default is None}
    values = {name: None if value == "none" and name in optional else value for name, value in given.items()}
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise InputError("\n".join(_sentence(config, problem) for problem in error.errors())) from error


def _sentence(config: type[BaseModel], problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if name not in config.model_fields:
        return message
    return f"{name} = {problem['input']!r}: {message} ({config.model_fields[name].description})"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error of the user's is one message and exit code 2."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that runs are closed, not left RUNNING
    group = click.Group("inandout", help="Make the missing defects, and find out whether they helped.")
    for name, stage in STAGES.items():
        group.add_command(build_command(name, stage))
    try:
        group.main(arguments, standalone_mode=True, prog_name="inandout")
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
