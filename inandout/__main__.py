"""`python -m inandout <stage> [options]`: the only module that reads the command line."""

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click
from pydantic import BaseModel, ValidationError

from inandout.errors import InputError


class Stage(NamedTuple):
    """An entry point: its options are the fields of `config`."""

    config: type[BaseModel]
    run: Callable[[Any], object]
    plan: Callable[[Any], object] | None = None
    """Prints what `run` would cost."""


class Stages(Mapping[str, Stage]):
    """Entry points by name, imported when they are asked for: what `check` needs is there seconds before diffusers."""

    def __init__(self, places: dict[str, tuple[str, ...]]) -> None:
        """`places`: name to module in `inandout.stages`, configuration, function, and what tells its cost, if any."""
        self._places = places

    def __getitem__(self, name: str) -> Stage:
        module, *names = self._places[name]
        found = import_module(f"inandout.stages.{module}")
        return Stage(*(getattr(found, each) for each in names))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


STAGES: Mapping[str, Stage] = Stages(
    {
        "main": ("experiment.compare", "CompareConfig", "compare"),
        "check": ("data", "CheckConfig", "check"),
        "surfaces": ("data", "MakeSurfacesConfig", "surfaces"),
        "download": ("data", "DownloadConfig", "download"),
        "pretrain": ("pretrain", "PretrainConfig", "pretrain"),
        "finetune": ("finetune", "FinetuneConfig", "finetune"),
        "convert": ("convert", "ConvertConfig", "convert"),
        "augment": ("pools.augment", "AugmentConfig", "augment"),
        "filter": ("analysis.filter", "FilterConfig", "filter_pool"),
        "review": ("review.run", "ReviewConfig", "review"),
        "extend-pool": ("pools.extend_pool", "ExtendPoolConfig", "extend_pool"),
        "label-errors": ("classify.label_errors", "LabelErrorsConfig", "find_label_errors"),
        "classify": ("classify.train", "ClassifyConfig", "classify"),
        "export": ("release.export", "ExportConfig", "export"),
        "search": ("search.run", "SearchConfig", "search"),
        "probe-shortcut": ("analysis.probe_shortcut", "ProbeShortcutConfig", "probe_shortcut"),
        "distance": ("analysis.distance", "DistanceConfig", "distance"),
        "experiment": ("experiment.run", "ExperimentConfig", "experiment", "plan"),
        "report": ("experiment.report", "ReportConfig", "report"),
        "promote": ("release.promote", "PromoteConfig", "promote"),
        "rollback": ("release.promote", "RollbackConfig", "rollback"),
    }
)
"""Every entry point of MLproject, which repeats their fields and defaults; a test compares."""

ALIASES = {"topup": "extend-pool", "labels": "label-errors", "probe": "probe-shortcut"}
"""Old names of entry points, on the command line and in MLproject; `--help` does not list them."""


class Commands(click.Group):
    """The entry points as commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(STAGES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The one of this name, or of an old name."""
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        return build_command(cmd_name, STAGES[cmd_name]) if cmd_name in STAGES else None


def build_command(name: str, stage: Stage) -> click.Command:
    """The command of one stage: an option a field, and `--dry-run`."""

    def call(dry_run: str, **given: str | None) -> None:
        config = _parse(stage.config, {key: value for key, value in given.items() if value is not None})
        if dry_run == "true":
            click.echo(json.dumps(config.model_dump(mode="json"), indent=2))
            if stage.plan:
                stage.plan(config)
        else:
            stage.run(config)

    options: list[click.Parameter] = [_option(stage.config, field) for field in stage.config.model_fields]
    options.append(
        click.Option(
            ["--dry-run", "--dry_run", "dry_run"], type=click.Choice(["true", "false"]), default="false",
            is_flag=False, flag_value="true",
            help="print the resolved configuration" + (", what it will cost," if stage.plan else "") + " and stop",
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
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels for 4 bits, which nothing here uses
    group = Commands("inandout", help="Make the missing defects, and find out whether they helped.")
    try:
        group.main(arguments, standalone_mode=True, prog_name="inandout")
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
