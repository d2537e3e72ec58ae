"""Command line: `python -m inandout <stage> [options]`."""

import io
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click
from pydantic import ValidationError

from inandout.errors import InputError
from inandout.mlproject import mlproject
from inandout.options import Option, StageConfig


class Stage(NamedTuple):
    """An entry point and its configuration."""

    config: type[StageConfig]
    run: Callable[[Any], object]
    plan: Callable[[Any], object] | None = None
    """Print the estimated cost of `run`."""


class Stages(Mapping[str, Stage]):
    """Entry points by name, imported on access, so that `check` does not wait seconds for diffusers."""

    def __init__(self, locations: dict[str, tuple[str, ...]]) -> None:
        """Map names to (module in `inandout.stages`, configuration, function[, function that prints the cost])."""
        self._locations = locations

    def __getitem__(self, name: str) -> Stage:
        module, *names = self._locations[name]
        loaded = import_module(f"inandout.stages.{module}")
        return Stage(*(getattr(loaded, each) for each in names))

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __len__(self) -> int:
        return len(self._locations)


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
        "clean": ("clean", "CleanConfig", "clean"),
    }
)
"""Entry points of the command line and of MLproject."""

ALIASES = {"topup": "extend-pool", "labels": "label-errors", "probe": "probe-shortcut"}
"""Old names of entry points, on the command line and in MLproject; `--help` does not list them."""


class Commands(click.Group):
    """The entry points as commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return [*STAGES, "mlproject"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, or None."""
        if cmd_name == "mlproject":
            return _write_mlproject
        name = ALIASES.get(cmd_name, cmd_name)
        return build_command(name, STAGES[name]) if name in STAGES else None


@click.command("mlproject")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="file to write [default none: print it]")
def _write_mlproject(out: Path | None) -> None:
    """Write the file MLproject from the configurations of the entry points."""
    text = mlproject({name: stage.config for name, stage in STAGES.items()}, ALIASES)
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


def build_command(name: str, stage: Stage) -> click.Command:
    """Build the command of a stage, with its options and `--dry-run`."""

    def call(dry_run: str, **given: str | None) -> None:
        config = _parse(stage.config, {key: value for key, value in given.items() if value is not None})
        if dry_run == "true":
            click.echo(json.dumps(config.resolved().flat(), indent=2))
            if stage.plan:
                stage.plan(config)
        else:
            stage.run(config)

    options: list[click.Parameter] = [_option(*item) for item in stage.config.options().items()]
    options.append(
        click.Option(
            ["--dry-run", "--dry_run", "dry_run"], type=click.Choice(["true", "false"]), default="false",
            is_flag=False, flag_value="true",
            help="print the resolved configuration" + (" and the estimated cost" if stage.plan else "") + " and exit",
        )
    )  # fmt: skip
    return click.Command(name, callback=call, params=options, help=stage.run.__doc__)


def _option(name: str, option: Option) -> click.Option:
    """Build an option. Its value stays text, because the configuration checks types and ranges."""
    field = option.field
    limits = [(symbol, getattr(limit, key, None)) for limit in field.metadata for key, symbol in _BOUNDS.items()]
    bounds = [f"{symbol} {value}" for symbol, value in limits if value is not None]
    note = ", ".join([*bounds, f"default {'none' if field.default in (None, '') else field.default}"])
    spellings = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
    return click.Option([*spellings, name], help=f"{field.description} [{note}]")


_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _parse(config: type[StageConfig], given: dict[str, str]) -> StageConfig:
    optional = {name for name, option in config.options().items() if option.field.default is None}
    values = {name: None if value == "none" and name in optional else value for name, value in given.items()}
    try:
        return config.from_flat(**values)
    except ValidationError as error:
        raise InputError("\n".join(_sentence(config, problem) for problem in error.errors())) from error


def _sentence(config: type[StageConfig], problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    for name, option in config.options().items():
        if problem["loc"] == (*option.parts, name):
            return f"{name} = {problem['input']!r}: {message} ({option.field.description})"
    return message


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an `InputError` becomes a message on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # consoles of few characters
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that runs are closed, not left RUNNING
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns about unused 4-bit kernels
    group = Commands("inandout", help="Generate synthetic defects and measure whether they improve defect detection.")
    try:
        group.main(arguments, standalone_mode=True, prog_name="inandout")
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
