"""Command line: `python -m inandout <stage> [options]`."""

import io
import json
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from inandout.config_file import read_options
from inandout.diffusion.base.config import BaseConfig
from inandout.entry_points import ALIASES, STAGES, Stage
from inandout.errors import InputError, did_you_mean, explain
from inandout.hardware import HardwareConfig, explain_memory, is_out_of_memory
from inandout.options import Option, StageConfig

_VERBOSE = "show warnings and logs of other libraries, and the traceback of an error"


class Commands(click.Group):
    """The entry points as commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return [*STAGES, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, or None."""
        name = ALIASES.get(cmd_name, cmd_name)
        return build_command(name, STAGES[name]) if name in STAGES else self.commands.get(name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:  # fmt: skip
        """Return the command that `args` names; an unknown name is answered with the nearest one."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"No such command {name!r}{did_you_mean(name, [*self.list_commands(ctx), *ALIASES])}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without building them."""
        summaries = {name: stage.summary for name, stage in STAGES.items()}
        summaries |= {name: command.get_short_help_str(limit=100) for name, command in self.commands.items()}
        with formatter.section("Commands"):
            formatter.write_dl(list(summaries.items()))


@click.command("mlproject")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="file to write [default none: print it]")
def _write_mlproject(out: Path | None) -> None:
    """Write the file MLproject from the configurations of the entry points."""
    from inandout.mlproject import mlproject

    text = mlproject({name: stage.config for name, stage in STAGES.items()}, ALIASES)
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


@click.command("doctor")
@click.option("--base", default="embedded", show_default=True, help="base model to check")
@click.option("-v", "--verbose", is_flag=True, help=_VERBOSE)
def _doctor(base: str, verbose: bool) -> None:
    """Check the installation, the machine, the tracking store and the base model."""
    from inandout.stages.doctor import doctor

    with _logs_of_libraries(verbose):
        right = doctor(base)
    sys.exit(not right)


def build_command(name: str, stage: Stage) -> click.Command:
    """Build the command of a stage: its options, `--config`, `--dry-run` and `--verbose`."""

    def call(config_file: str | None, dry_run: str, verbose: bool, **given: str | None) -> None:
        from_file = read_options(config_file, name, stage.config) if config_file else {}
        config = _parse(stage.config, from_file | {key: value for key, value in given.items() if value is not None})
        with _logs_of_libraries(verbose):
            if dry_run == "true":
                click.echo(json.dumps(config.resolved().flat(), indent=2))
                stage.plan(config)
            else:
                _fetch_configuration(config)
                _announce(stage, config)
                stage.run(config)

    cost = " and the estimated cost" if stage.plan_location else ""
    options: list[click.Parameter] = [_option(*item) for item in stage.config.options().items()]
    options += [
        click.Option(
            ["--config", "config_file"],
            help="YAML or JSON file of options, or run:<id> for the options of a run; options given here override it",
        ),
        click.Option(
            ["--dry-run", "--dry_run", "dry_run"], type=click.Choice(["true", "false"]), default="false",
            is_flag=False, flag_value="true",
            help=f"print the resolved configuration{cost} and exit",
        ),
        click.Option(["-v", "--verbose"], is_flag=True, help=_VERBOSE),
    ]  # fmt: skip
    return click.Command(name, callback=call, params=options, help=stage.summary)


def _option(name: str, option: Option) -> click.Option:
    """Build an option. Its value stays text, because the configuration checks types and ranges."""
    field = option.field
    limits = [(symbol, getattr(limit, key, None)) for limit in field.metadata for key, symbol in _BOUNDS.items()]
    bounds = [f"{symbol} {value}" for symbol, value in limits if value is not None]
    note = ", ".join([*bounds, f"default {'none' if field.default in (None, '') else field.default}"])
    spellings = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
    return click.Option([*spellings, name], help=f"{field.description} [{note}]")


_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _parse(config: type[StageConfig], given: dict[str, Any]) -> StageConfig:
    optional = {name for name, option in config.options().items() if option.field.default is None}
    values = {name: None if value == "none" and name in optional else value for name, value in given.items()}
    try:
        return config.from_flat(**values)
    except ValidationError as error:
        raise InputError("\n".join(_sentence(config, problem) for problem in error.errors())) from error
    except ValueError as error:
        raise InputError(str(error)) from error


def _sentence(config: type[StageConfig], problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "literal_error":
        message += did_you_mean(problem["input"], re.findall("'(.*?)'", problem["ctx"]["expected"]))
    for name, option in config.options().items():
        if problem["loc"] == (*option.parts, name):
            return f"{name} = {problem['input']!r}: {message} ({option.field.description})"
    return message


def _fetch_configuration(config: StageConfig) -> None:
    """Download the configuration of a base on the hub, on which defaults depend."""
    options = config.flat()
    if options.get("base"):
        BaseConfig(base=options["base"], base_config=options.get("base_config") or "").fetch_configuration()


def _announce(stage: Stage, config: StageConfig) -> None:
    """Print what a long stage is about to do, before the imports that take seconds."""
    resolved = config.resolved()
    lines = resolved.summary()
    if not lines or os.environ.get("RANK", "0") != "0":  # accelerate launch starts several processes
        return
    fresh = config.flat()["fresh"]
    reuse = "finished runs are not reused" if fresh else "a finished run with the same options, data and code is reused"
    click.echo("\n".join([*lines, reuse]), err=True)
    if duration := stage.duration(resolved):
        click.echo(f"time: {duration}", err=True)
    import torch

    hardware = HardwareConfig.model_validate({name: config.flat()[name] or "auto" for name in _HARDWARE}).open()
    on_gpu = hardware.device.type == "cuda"
    name = torch.cuda.get_device_name(hardware.device) if on_gpu else f"{torch.get_num_threads()} threads"
    click.echo(f"device: {hardware.device} ({name}), {hardware.precision}", err=True)


_HARDWARE = ("device", "precision")


_QUIET = {"MLFLOW_LOGGING_LEVEL": "CRITICAL", "PYTHONWARNINGS": "ignore"}
"""The same for worker processes."""


@contextmanager
def _logs_of_libraries(shown: bool) -> Iterator[None]:
    """Show or hide the warnings and logs of other libraries; the package itself prints and logs nothing."""
    if shown:
        yield
        return
    logging.disable(logging.ERROR)  # what libraries log as errors, they raise as well
    added = {name: value for name, value in _QUIET.items() if name not in os.environ}
    os.environ |= added
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        for name in added:
            del os.environ[name]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error that a user can fix becomes a message on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # consoles of few characters
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that runs are closed, not left RUNNING
    group = Commands("inandout", help="Generate synthetic defects and measure whether they improve defect detection.")
    group.add_command(_doctor)
    group.add_command(_write_mlproject)
    try:
        group.main(arguments, standalone_mode=True, prog_name="inandout")
    except Exception as error:
        sentence = str(explain_memory(error)) if is_out_of_memory(error) else explain(error)
        if sentence is None:
            raise
        if {"-v", "--verbose"} & set(sys.argv[1:] if arguments is None else arguments):
            traceback.print_exc()
        click.echo(f"error: {sentence}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
