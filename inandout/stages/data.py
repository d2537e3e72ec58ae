"""Entry points `check`, `surfaces` and `download`, which open no run."""

from pathlib import Path

from inandout.data.check import class_problems, describe, without_problems
from inandout.data.download import download_ksdd2
from inandout.data.geometry import survival
from inandout.data.manifest import write_manifest
from inandout.data.prepare import check_data, data_path
from inandout.data.surfaces import write_surfaces
from inandout.errors import InputError
from inandout.stages.config import CheckConfig, DownloadConfig, MakeSurfacesConfig


def check(config: CheckConfig) -> None:
    """Print the problems of a dataset and its numbers of images.

    Raises:
        InputError: the dataset has problems and `write` is empty, or the usable images are not sufficient.
    """
    if config.write and Path(config.write).resolve() == Path(config.data).resolve():
        raise InputError(f"write = {config.write}: is the manifest of the dataset; give another name")
    samples, problems = check_data(data_path(config.data))
    if problems:
        print(describe(problems))
    errors = sum(problem.kind != "remark" for problem in problems)
    if errors and not config.write:
        raise InputError(f"{errors} problems in {config.data}; fix them, or give write=FILE.csv to exclude the images")
    usable = without_problems(samples, problems)
    remaining = [problem for problem in class_problems(usable) if problem.kind != "remark"]
    if remaining:
        raise InputError(f"the usable images of {config.data} are not sufficient: {describe(remaining)}")
    if config.write:
        write_manifest(usable, Path(config.write))
        print(f"{config.write}: {len(usable)} of {len(samples)} images")
    for split in sorted({sample.split for sample in usable}):
        labels = [sample.label for sample in usable if sample.split == split]
        print(f"{split or 'no split':8}  {len(labels) - sum(labels)} negatives, {sum(labels)} positives")
    size = config.geometry
    print(f"at {size.width}x{size.height}: {survival(usable, size).sentence()}")


def surfaces(config: MakeSurfacesConfig) -> None:
    """Draw the embedded dataset, or one with other options."""
    folder = Path(config.out)
    write_surfaces(folder, config.surfaces)
    print(f"{folder}: {len(list(folder.glob('*/*_GT.png')))} images and masks in KolektorSDD2's layout")


def download(config: DownloadConfig) -> None:
    """Download KolektorSDD2 from its authors."""
    print(f"downloaded; use it with data={download_ksdd2(Path(config.out))}")
