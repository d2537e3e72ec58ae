"""Entry point `main`: the same classifier with and without synthetic defects, over seeds, as one table."""

from typing import Annotated

import mlflow
from pydantic import AfterValidator, Field

from inandout.data.manifest import fingerprint
from inandout.data.prepare import read_data
from inandout.diffusion.base.base import BaseConfig
from inandout.parallel import ParallelConfig
from inandout.reporting.tables import Row, markdown_table
from inandout.stages.classify.config import ClassifyConfig, TrainingConfig
from inandout.stages.experiment.cells import (
    SHOTS,
    SOURCES,
    Cell,
    build_cells,
    measure_cells,
    paired_tests,
    refuse_impossible_cells,
)
from inandout.tracking import connect, experiment_url, log_dataset, open_run, stage_fingerprint


def _shots(text: str) -> str:
    return _some_of(SHOTS, text, "shot")


def _sources(text: str) -> str:
    return _some_of(tuple(SOURCES), text, "source")


def _some_of(allowed: tuple[str, ...], text: str, what: str) -> str:
    names = [part.strip() for part in text.split(",")]
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a {what}; give some of {', '.join(allowed)}, separated by commas")
    return _without_repeats(names)


def _seeds(text: str) -> str:
    return _numbers(text, 0, 2**32 - 1, "seed")


def _n_augs(text: str) -> str:
    return _numbers(text, 1, 100_000, "number of synthetic positives")


def _numbers(text: str, least: int, most: int, what: str) -> str:
    for part in text.split(","):
        if not part.strip().isdigit() or not least <= int(part) <= most:
            raise ValueError(f"{part!r} is not a {what}; give numbers of {least} to {most}, separated by commas")
    return _without_repeats([str(int(part)) for part in text.split(",")])


def _without_repeats(names: list[str]) -> str:
    """A repeated cell would be found finished, and counted as a second measurement with the same result."""
    if len(set(names)) < len(names):
        raise ValueError(f"{','.join(names)} names one of them twice; give each once")
    return ",".join(names)


Seeds = Annotated[str, AfterValidator(_seeds)]
"""Different ones, separated by commas."""
NAugs = Annotated[str, AfterValidator(_n_augs)]
"""Different numbers of synthetic positives, separated by commas."""


class CompareConfig(TrainingConfig, BaseConfig, ParallelConfig):
    """The comparison; every seed is one repetition of everything, from the validation part to the order of images."""

    shots: Annotated[str, AfterValidator(_shots)] = Field("zero,full", description="scenarios, separated by commas")
    sources: Annotated[str, AfterValidator(_sources)] = Field(
        "none,memseg", description="of synthetic positives, some of none, memseg, ddpm, inout (half and half), inpaint"
    )
    seeds: Seeds = Field("0", description="repetitions, separated by commas")
    n_shot: int = Field(5, ge=1, description="real positives of shot=few")
    fresh: bool = Field(False, description="run again although a finished run has the same fingerprint")

    def cells(self) -> list[Cell]:
        """Every classifier that is trained."""
        shared = self.model_dump(include=set(ClassifyConfig.model_fields) - {"seed", "shot", "n_aug"})
        shots = [shot for shot in SHOTS if shot in self.shots.split(",")]
        seeds = [int(seed) for seed in self.seeds.split(",")]
        return list(build_cells(shots, self.sources.split(","), [self.n_aug], seeds, shared))


def compare(config: CompareConfig) -> list[Row]:
    """Every cell of the comparison; finished ones are reused. Prints the table and says where to look."""
    connect()
    data, cells = read_data(config.data), config.cells()
    inputs = {"data": fingerprint(data.samples)}
    refuse_impossible_cells(cells, data)
    with open_run(
        "main", config, stage_fingerprint("main", config, inputs), f"{config.sources} on {config.data}"
    ) as run:
        log_dataset(config.data, inputs["data"], data.samples)
        rows = measure_cells(cells, data, config)
        text = f"{markdown_table(rows)}\n\n{paired_tests(rows)}".rstrip()
        mlflow.log_text(text, "results.md")
    print(f"\n{text}\n\n{experiment_url(run)}")
    return rows
