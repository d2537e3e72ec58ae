"""Load, check, group and split a dataset."""

import sys
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
"""Value of `data` that selects the embedded dataset."""


Seed = Annotated[int, Field(ge=0, lt=2**32, description="seed of the split, shot, images, weights and data order")]


class DataConfig(BaseModel):
    """Dataset and split shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(
        EMBEDDED,
        min_length=1,
        description="surfaces (procedural, generated on first use), a CSV manifest, or a folder in the layout of "
        "KolektorSDD2, MVTec-AD, or good/ and defect/",
    )
    test_share: float = Field(0.35, gt=0, lt=1, description="share of the test split, if the dataset has no split")
    val_share: float = Field(0.2, ge=0, le=0.5, description="share of the training split held out for validation")


NShot = Annotated[int, Field(ge=1, description="number of real positives for shot=few")]


class ShotConfig(BaseModel):
    """Number of real positives to train on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shot: Shot = Field("full", description="real positives to train on: zero, few (n_shot) or full (all)")
    n_shot: NShot = 5


def data_path(name: str) -> Path:
    """Return the path of a dataset; the embedded dataset is generated if it is missing."""
    if name != EMBEDDED:
        return Path(name)
    config = SurfacesConfig()
    folder = Path("data") / f"{EMBEDDED}-{drawing_fingerprint(config)}"
    write_surfaces(folder, config)
    return folder


def check_data(path: Path) -> tuple[list[Sample], list[Problem]]:
    """Return all samples of a dataset and all its problems."""
    scan = scan_data(path)
    if scan.problems:
        return scan.samples, [*scan.problems, *check(scan.samples)]
    return scan.samples, check(scan.samples)


def read_checked(name: str) -> list[Sample]:
    """Return all samples of a dataset without errors or leaks; remarks are counted on stderr.

    Raises:
        InputError: `check_data` found errors or leaks; the message lists the first 20.
    """
    samples, problems = check_data(data_path(name))
    errors = [problem for problem in problems if problem.kind != "remark"]
    if errors:
        hint = "run the entry point 'check' with write=FILE.csv to write a manifest without them"
        raise InputError(f"{name} has {len(errors)} problems; {hint}\n{describe(errors, at_most=20)}")
    if problems:
        remarks = f"{len(problems)} remark{'s' * (len(problems) > 1)}"
        print(f"{name}: {remarks}, for example {describe(problems[:1])}; 'check' lists them", file=sys.stderr)
    return samples


class CheckedData(NamedTuple):
    """Dataset that was read, checked and grouped once. It can be split for any seed and shot."""

    samples: Sequence[Sample]
    """All samples. Near-duplicates share a group."""

    def split(self, config: DataConfig, seed: int) -> list[Sample]:
        """Return all samples, split into training, validation and test parts."""
        return cut_validation(split_test(self.samples, config.test_share, seed), config.val_share, seed)

    def take_shot(self, config: DataConfig, scenario: ShotConfig, seed: int) -> list[Sample]:
        """Run `split`, and keep the real positives that `scenario` allows."""
        return take_shot(self.split(config, seed), scenario.shot, scenario.n_shot, seed)


def read_data(name: str) -> CheckedData:
    """Read, check and group a dataset; decodes every image and raises as `read_checked`."""
    samples = read_checked(name)
    if any(sample.group == "" for sample in samples):
        # Keep near-duplicates of training images out of the validation split.
        samples = group_near_duplicates(samples)
    return CheckedData(samples)


def prepare(config: DataConfig, seed: int) -> list[Sample]:
    """Read, check, group and split a dataset; raises as `read_checked`."""
    return read_data(config.data).split(config, seed)


def prepare_shot(config: DataConfig, scenario: ShotConfig, seed: int) -> list[Sample]:
    """Run `prepare`, and keep the real positives that `scenario` allows."""
    return read_data(config.data).take_shot(config, scenario, seed)
