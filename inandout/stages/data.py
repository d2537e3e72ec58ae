"""Entry points about data alone; they open no run."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from inandout.data.check import describe
from inandout.data.download import download_ksdd2
from inandout.data.geometry import survival
from inandout.data.prepare import EMBEDDED, check_data, data_path
from inandout.data.surfaces import SurfacesConfig, write_surfaces
from inandout.errors import InputError


class CheckConfig(BaseModel):
    """What to check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(EMBEDDED, min_length=1, description="as for classify")
    width: int = Field(64, ge=32, le=4096, description="width in pixels that pictures will be fitted to")
    height: int = Field(192, ge=32, le=4096, description="height in pixels, likewise")


class MakeSurfacesConfig(SurfacesConfig):
    """Which surfaces to draw, and where to."""

    out: str = Field("data/surfaces", min_length=1, description="folder to write; must not hold anything else")


class DownloadConfig(BaseModel):
    """Where KolektorSDD2 goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str = Field("data/ksdd2", min_length=1, description="folder to write")


def check(config: CheckConfig) -> None:
    """List everything that is wrong with a data set; print what it holds where nothing is.

    Raises:
        InputError: something is wrong; the message lists all of it.
    """
    samples, problems = check_data(data_path(config.data))
    if problems:
        raise InputError(f"{len(problems)} problems:\n{describe(problems)}")
    for split in sorted({sample.split for sample in samples}):
        labels = [sample.label for sample in samples if sample.split == split]
        print(f"{split or 'no split':8}  {len(labels) - sum(labels)} negatives, {sum(labels)} positives")
    print(f"at {config.width}x{config.height}: {survival(samples, config.width, config.height).sentence()}")
    print("no problems found")


def surfaces(config: MakeSurfacesConfig) -> None:
    """Draw the embedded data set, or one like it."""
    folder = Path(config.out)
    write_surfaces(folder, SurfacesConfig(**config.model_dump(exclude={"out"})))
    print(f"{folder}: {len(list(folder.glob('*/*_GT.png')))} pictures and masks in KolektorSDD2's layout")


def download(config: DownloadConfig) -> None:
    """Fetch KolektorSDD2 from its authors."""
    print(f"{download_ksdd2(Path(config.out))}: ready; use it with data=ksdd2")
