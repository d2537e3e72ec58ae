"""Write a whole data set of surfaces, in the layout of KolektorSDD2."""

import hashlib
import json
import tempfile
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator
from tqdm import tqdm

from inandout.data.images import write_image
from inandout.data.surfaces.defects import KINDS
from inandout.data.surfaces.drawing import SMALLEST, Surface, draw_surface
from inandout.data.surfaces.textures import SURFACES
from inandout.errors import InputError

MIXED = "mixed"
"""The value of `SurfacesConfig.surface` that stands for all surfaces."""

RECORD = "surfaces.json"
"""The file of a data set that says how it was drawn: configuration, package version, and a row an image."""

_FIRST_NUMBER = {"train": 10000, "test": 20000}


class SurfacesConfig(BaseModel):
    """What data set to draw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(64, ge=SMALLEST, le=4096, description="width of an image in px")
    height: int = Field(192, ge=SMALLEST, le=4096, description="height of an image in px")
    train_negatives: int = Field(480, ge=1, le=10_000, description="images without defect to train on")
    train_positives: int = Field(96, ge=0, le=10_000, description="images with a defect to train on")
    test_negatives: int = Field(160, ge=1, le=10_000, description="images without defect to test on")
    test_positives: int = Field(60, ge=1, le=10_000, description="images with a defect to test on")
    surface: str = Field(
        "brushed",
        description=f"one of {', '.join(SURFACES)}: parts of one product; or {MIXED}: every image of another product",
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the product and of all images")

    @field_validator("surface")
    @classmethod
    def _known(cls, surface: str) -> str:
        if surface not in (*SURFACES, MIXED):
            raise ValueError(f"unknown surface {surface!r}; allowed are {', '.join(SURFACES)}, {MIXED}")
        return surface


class _Plan(NamedTuple):
    """One image before it is drawn."""

    file: str
    """Path inside the data set."""
    seed: int
    defect: str


def drawing_fingerprint(config: SurfacesConfig) -> str:
    """Identity of a data set: of its configuration and of the code that draws it."""
    whole = hashlib.sha256(config.model_dump_json().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(path.read_bytes())
    return whole.hexdigest()[:12]


def write_surfaces(folder: Path, config: SurfacesConfig) -> bool:
    """Write the data set of `config` to `folder`; the same configuration gives the same pixels.

    (On another kind of processor a few pixels may differ by one level, as its exponentials round differently.)

    The layout is KolektorSDD2's: `train/10000.png` and its mask `train/10000_GT.png`, then `test/20000.png` and so on;
    masks are 8-bit grey, 255 on the defect. `surfaces.json` says what is on each image. The folder appears only when
    all is written, so that a killed run leaves no half data set under its name.

    Returns:
        Whether it was written: false if `folder` holds this very data set already, which is then left as it is.

    Raises:
        InputError: `folder` exists and holds anything else, or cannot be made.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        _check_same(folder, config)
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            unfinished = Path(temporary) / "surfaces"
            _write_all(unfinished, config)
            unfinished.rename(folder)
    except OSError as error:
        if folder.is_dir() and any(folder.iterdir()):  # another process was faster
            _check_same(folder, config)
            return False
        raise InputError(f"{folder}: the data set cannot be written there ({error}); give another folder") from error
    return True


def _write_all(folder: Path, config: SurfacesConfig) -> None:
    for split in _FIRST_NUMBER:
        (folder / split).mkdir(parents=True)
    rows = []
    for plan in tqdm(_plans(config), desc="drawing surfaces", unit="image", disable=None):
        drawn = _draw(plan, config)
        write_image(folder / plan.file, drawn.image)
        write_image(folder / plan.file.replace(".png", "_GT.png"), drawn.mask)
        rows.append({"file": plan.file, "seed": plan.seed, **_described(drawn)})
    record = {"config": config.model_dump(), "version": version("inandout"), "images": rows}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _plans(config: SurfacesConfig) -> list[_Plan]:
    """All images, in the order of their names: kinds in equal shares, negatives and positives shuffled."""
    rng = np.random.default_rng(config.seed)
    plans = []
    for split, negatives, positives in (
        ("train", config.train_negatives, config.train_positives),
        ("test", config.test_negatives, config.test_positives),
    ):
        defects = [""] * negatives + [KINDS[number % len(KINDS)] for number in range(positives)]
        for number, index in enumerate(rng.permutation(len(defects)), start=_FIRST_NUMBER[split]):
            plans.append(_Plan(f"{split}/{number}.png", int(rng.integers(2**53)), defects[index]))
    return plans


def _draw(plan: _Plan, config: SurfacesConfig) -> Surface:
    if config.surface == MIXED:
        return draw_surface(config.width, config.height, plan.seed, plan.defect)
    return draw_surface(config.width, config.height, plan.seed, plan.defect, config.surface, product=config.seed)


def _described(drawn: Surface) -> dict[str, object]:
    return {field.name: getattr(drawn, field.name) for field in fields(drawn) if field.name not in ("image", "mask")}


def _check_same(folder: Path, config: SurfacesConfig) -> None:
    """Refuse a folder that holds anything but the finished data set of `config`, drawn by this version."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        same = record["config"] == config.model_dump() and record["version"] == version("inandout")
        files = [str(row["file"]) for row in record["images"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: exists and holds no data set of surfaces; give a new folder, or empty this one"
        ) from error
    if not same:
        raise InputError(
            f"{folder}: holds surfaces drawn with another configuration or by another version, see {RECORD} there; "
            "give a new folder, or remove this one"
        )
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise InputError(f"{folder}: {missing[0]} is missing from the data set; remove the folder to draw it again")
