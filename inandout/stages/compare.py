"""Entry point `main`: the same classifier with and without synthetic defects, over seeds, as one table."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated, Literal, NamedTuple

import mlflow
from pydantic import AfterValidator, Field

from inandout.data.manifest import fingerprint
from inandout.data.prepare import read_checked
from inandout.data.splits import Shot
from inandout.diffusion.base import BaseConfig
from inandout.errors import InputError
from inandout.report import Row, markdown_table
from inandout.stages.classify import ClassifyConfig, TrainingConfig, classify, refuse_impossible
from inandout.stages.scores import read_scores
from inandout.tracking import connect, experiment_url, log_dataset, open_run, stage_fingerprint
from inandout.verdict import verdict

SHOTS: tuple[Shot, ...] = ("zero", "few", "full")


class Source(NamedTuple):
    """Where synthetic positives come from."""

    title: str
    """What a table calls it."""
    ddpm_ratio: float
    diffusion: Literal["ddpm", "inpaint"] = "ddpm"


SOURCES = {
    "none": Source("none", 0.0),
    "memseg": Source("MemSeg", 0.0),
    "ddpm": Source("DDPM", 1.0),
    "inout": Source("In&Out", 0.5),
    "inpaint": Source("inpainting", 1.0, "inpaint"),
}


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
    for part in text.split(","):
        if not part.strip().isdigit() or int(part) >= 2**32:
            raise ValueError(f"{part!r} is not a seed; give numbers of 0 to 2**32 - 1, separated by commas")
    return _without_repeats([str(int(part)) for part in text.split(",")])


def _without_repeats(names: list[str]) -> str:
    """A repeated cell would be found finished, and counted as a second measurement with the same result."""
    if len(set(names)) < len(names):
        raise ValueError(f"{','.join(names)} names one of them twice; give each once")
    return ",".join(names)


Seeds = Annotated[str, AfterValidator(_seeds)]
"""Different ones, separated by commas."""


class CompareConfig(TrainingConfig, BaseConfig):
    """The comparison; every seed is one repetition of everything, from the validation part to the order of pictures."""

    shots: Annotated[str, AfterValidator(_shots)] = Field("zero,full", description="scenarios, separated by commas")
    sources: Annotated[str, AfterValidator(_sources)] = Field(
        "none,memseg", description="of synthetic positives, some of none, memseg, ddpm, inout (half and half), inpaint"
    )
    seeds: Seeds = Field("0", description="repetitions, separated by commas")
    n_shot: int = Field(5, ge=1, description="real positives of shot=few")
    fresh: bool = Field(False, description="run again although a finished run has the same fingerprint")

    def cells(self) -> Iterator[tuple[str, ClassifyConfig]]:
        """(source of synthetic positives, classifier) of every cell; zero shots without synthetic ones cannot be."""
        shared = self.model_dump(include=set(ClassifyConfig.model_fields) - {"seed", "shot", "n_aug"})
        for shot, source in product(self.shots.split(","), self.sources.split(",")):
            title, ratio, diffusion = SOURCES[source]
            n_aug = 0 if source == "none" else self.n_aug
            if n_aug == 0 and (shot == "zero" or source != "none"):
                continue
            for seed in self.seeds.split(","):
                yield title, ClassifyConfig(
                    **shared, shot=shot, n_aug=n_aug, ddpm_ratio=ratio, diffusion=diffusion, seed=int(seed)
                )


def compare(config: CompareConfig) -> list[Row]:
    """Every cell of the comparison; finished ones are reused. Prints the table and says where to look."""
    connect()
    samples = read_checked(config.data)
    inputs = {"data": fingerprint(samples)}
    cells = list(config.cells())
    if not cells:
        raise InputError("nothing to compare: zero shots need n_aug of 1 or more")
    for _, cell in cells:
        refuse_impossible(cell)
    rows = []
    with open_run(
        "main", config, stage_fingerprint("main", config, inputs), f"{config.sources} on {config.data}"
    ) as run:
        log_dataset(config.data, inputs["data"], samples)
        for number, (source, cell) in enumerate(cells, start=1):
            print(f"[{number}/{len(cells)}] shot={cell.shot} source={source} seed={cell.seed}", flush=True)
            result = classify(cell)
            rows.append(Row(cell.shot, source, cell.seed, result.run_id, result.metrics))
        text = f"{markdown_table(rows)}\n\n{verdicts(rows)}".rstrip()
        mlflow.log_text(text, "results.md")
    print(f"\n{text}\n\n{experiment_url(run)}")
    return rows


def verdicts(rows: Sequence[Row]) -> str:
    """Of every shot: In&Out, or what comes last without it, against each other source, seed by seed."""
    lines = []
    for shot in dict.fromkeys(row.shot for row in rows):
        runs = {(row.source, row.seed): row.run_id for row in rows if row.shot == shot and "ap" in row.metrics}
        sources = list(dict.fromkeys(source for source, _ in runs))
        ours = "In&Out" if "In&Out" in sources else next(reversed(sources), "")
        for theirs in sources:
            seeds = [seed for source, seed in runs if source == ours and (theirs, seed) in runs]
            if theirs != ours and seeds:
                pairs = [(read_scores(runs[ours, seed]), read_scores(runs[theirs, seed])) for seed in seeds]
                lines.append(verdict(shot, ours, theirs, pairs))
    return "\n".join(lines)
