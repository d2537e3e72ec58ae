"""From the name of a data set to a checked, split manifest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from inandout.data.check import Problem, check, describe
from inandout.data.duplicates import group_near_duplicates
from inandout.data.manifest import Sample
from inandout.data.readers import scan_data
from inandout.data.splits import Shot, cut_validation, split_test, take_shot
from inandout.data.surfaces import SurfacesConfig, drawing_fingerprint, write_surfaces
from inandout.errors import InputError

EMBEDDED = "surfaces"
"""The value of `data` that stands for the data set the package draws itself."""


Seed = Annotated[int, Field(ge=0, lt=2**32, description="seed of everything: split, shot, images, weights, order")]


class DataConfig(BaseModel):
    """Which images, and how they are parted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(
        EMBEDDED,
        min_length=1,
        description="surfaces (procedural, drawn on first use), a CSV manifest, or a folder in KolektorSDD2's, "
        "MVTec-AD's or good/ + defect/ layout",
    )
    test_share: float = Field(0.35, gt=0, lt=1, description="test part, where the data set brings no split")
    val_share: float = Field(0.2, ge=0, le=0.5, description="share of the training part kept for validation")


NShot = Annotated[int, Field(ge=1, description="real positives of shot=few")]


class ShotConfig(BaseModel):
    """How many real defects are known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shot: Shot = Field("full", description="real positives to train on: zero, few (n_shot) or full (all)")
    n_shot: NShot = 5


def data_path(name: str) -> Path:
    """Where a data set lies; the embedded one is drawn where it is missing."""
    if name != EMBEDDED:
        return Path(name)
    config = SurfacesConfig()
    folder = Path("data") / f"{EMBEDDED}-{drawing_fingerprint(config)}"
    write_surfaces(folder, config)
    return folder


def check_data(where: Path) -> tuple[list[Sample], list[Problem]]:
    """Everything a data set holds, and everything that is wrong with it."""
    scan = scan_data(where)
    if scan.problems:
        return scan.samples, [*scan.problems, *check(scan.samples)]
    return scan.samples, check(scan.samples)


def read_checked(name: str) -> list[Sample]:
    """All samples of a data set in which nothing is wrong; `check` lists remarks, which do not count.

    Raises:
        InputError: `check_data` found problems; the message lists them.
    """
    samples, problems = check_data(data_path(name))
    errors = [problem for problem in problems if problem.kind != "remark"]
    if errors:
        hint = "the entry point 'check' can write a manifest without them (write=FILE.csv)"
        raise InputError(f"{len(errors)} problems in {name}; {hint}\n{describe(errors, at_most=20)}")
    return samples


class CheckedData(NamedTuple):
    """A data set that was read, checked and grouped once, to be split for any seed and shot."""

    samples: Sequence[Sample]
    """Every sample. Near duplicates share a group."""

    def split(self, config: DataConfig, seed: int) -> list[Sample]:
        """Every sample, with the training, validation and test part of a seed."""
        return cut_validation(split_test(self.samples, config.test_share, seed), config.val_share, seed)

    def take_shot(self, config: DataConfig, scenario: ShotConfig, seed: int) -> list[Sample]:
        """`split`, with as many real positives as the scenario has."""
        return take_shot(self.split(config, seed), scenario.shot, scenario.n_shot, seed)


def read_data(name: str) -> CheckedData:
    """Read, check and group a data set, which decodes every image; raises as `read_checked`."""
    samples = read_checked(name)
    if any(sample.group == "" for sample in samples):
        samples = group_near_duplicates(samples)  # or the validation part would hold copies of training images
    return CheckedData(samples)


def prepare(config: DataConfig, seed: int) -> list[Sample]:
    """Read and split a data set; raises as `read_checked`."""
    return read_data(config.data).split(config, seed)


def prepare_shot(config: DataConfig, scenario: ShotConfig, seed: int) -> list[Sample]:
    """Read and split a data set, with as many real positives as the scenario has; raises as `read_checked`."""
    return read_data(config.data).take_shot(config, scenario, seed)
