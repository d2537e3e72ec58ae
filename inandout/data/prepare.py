"""Load, check, group and split a dataset."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from inandout.data.check import Problem, check, describe
from inandout.data.config import EMBEDDED, DataConfig, ShotConfig
from inandout.data.duplicates import group_near_duplicates
from inandout.data.manifest import Sample
from inandout.data.readers import scan_data
from inandout.data.splits import cut_validation, split_test, take_fold, take_shot
from inandout.data.surfaces import SurfacesConfig, drawing_fingerprint, write_surfaces
from inandout.errors import InputError


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
        fold = config.fold_numbers()
        samples = take_fold(self.samples, *fold) if fold else split_test(self.samples, config.test_share, seed)
        return cut_validation(samples, config.val_share, seed)

    def take_shot(self, config: DataConfig, scenario: ShotConfig, seed: int) -> list[Sample]:
        """Run `split`, and keep the real positives that `scenario` allows."""
        return take_shot(self.split(config, seed), scenario, seed)


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
