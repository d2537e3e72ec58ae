"""Entry point `main`: compare classifiers with and without synthetic defects over seeds, in one table."""

from typing import Annotated

import mlflow
from pydantic import AfterValidator, Field

from inandout.classifier.backbone import BackboneConfig
from inandout.classifier.training import FitConfig
from inandout.data.geometry import Geometry
from inandout.data.manifest import fingerprint
from inandout.data.prepare import DataConfig, NShot, ShotConfig, read_data
from inandout.diffusion.base.base import BaseConfig
from inandout.fingerprints import Identity
from inandout.options import Fresh, StageConfig
from inandout.parallel import ParallelConfig
from inandout.reporting.tables import Row, markdown_table
from inandout.stages.classify.config import ClassifyConfig, MixConfig, ValFpr
from inandout.stages.classify.number_lists import Seeds, without_repeats
from inandout.stages.experiment.cells import (
    SHOTS,
    SOURCES,
    Cell,
    build_cells,
    measure_cells,
    paired_tests,
    refuse_impossible_cells,
)
from inandout.tracking.logging import experiment_url, log_dataset
from inandout.tracking.runs import open_run
from inandout.tracking.store import connect


def _shots(text: str) -> str:
    return _some_of(SHOTS, text, "shot")


def _sources(text: str) -> str:
    return _some_of(tuple(SOURCES), text, "source")


def _some_of(allowed: tuple[str, ...], text: str, what: str) -> str:
    names = [part.strip() for part in text.split(",")]
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a {what}; give a comma-separated subset of {', '.join(allowed)}")
    return without_repeats(names)


class CompareConfig(StageConfig):
    """Options of a comparison. A seed determines everything from the validation split to the order of images."""

    engine: ParallelConfig = ParallelConfig()
    data: DataConfig = DataConfig()
    geometry: Geometry = Geometry()
    base: BaseConfig = BaseConfig()
    fit: FitConfig = FitConfig()
    mix: MixConfig = MixConfig()
    backbone: BackboneConfig = BackboneConfig()
    val_fpr: ValFpr = 0.05
    shots: Annotated[str, AfterValidator(_shots)] = Field("zero,full", description="scenarios, separated by commas")
    sources: Annotated[str, AfterValidator(_sources)] = Field(
        "none,memseg",
        description="sources of synthetic positives: some of none, memseg, ddpm, inout (half of each), inpaint",
    )
    seeds: Seeds = Field("0", description="repetitions, separated by commas")
    n_shot: NShot = 5
    fresh: Fresh = False

    def cells(self) -> list[Cell]:
        """Return all cells of the comparison."""
        shared = ClassifyConfig(
            data=self.data, scenario=ShotConfig(n_shot=self.n_shot), geometry=self.geometry, base=self.base,
            fit=self.fit, mix=self.mix, backbone=self.backbone, val_fpr=self.val_fpr, fresh=self.fresh,
        )  # fmt: skip
        shots = [shot for shot in SHOTS if shot in self.shots.split(",")]
        seeds = [int(seed) for seed in self.seeds.split(",")]
        return list(build_cells(shots, self.sources.split(","), [self.mix.n_aug], seeds, shared))


def compare(config: CompareConfig) -> list[Row]:
    """Train and evaluate every cell, reuse finished runs, print and log the table."""
    connect()
    name, cells = config.data.data, config.cells()
    data = read_data(name)
    inputs = {"data": fingerprint(data.samples)}
    refuse_impossible_cells(cells, data)
    key = Identity("main", __name__, config, inputs, ignored=["data"]).fingerprint
    with open_run("main", config.flat(), key, f"{config.sources} on {name}") as run:
        log_dataset(name, inputs["data"], data.samples)
        rows = measure_cells(cells, data, config.engine)
        text = f"{markdown_table(rows)}\n\n{paired_tests(rows)}".rstrip()
        mlflow.log_text(text, "results.md")
    print(f"\n{text}\n\n{experiment_url(run)}")
    return rows
