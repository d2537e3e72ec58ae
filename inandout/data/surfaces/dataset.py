"""Write a dataset of surfaces in the KolektorSDD2 layout."""

import hashlib
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from inandout.data.config import KINDS, MIXED, SurfacesConfig
from inandout.data.images import write_image
from inandout.data.surfaces.drawing import Surface, draw_surface
from inandout.errors import InputError
from inandout.files import replacing

RECORD = "surfaces.json"
"""File name of the dataset's metadata: configuration, `drawing_fingerprint` and one row per image."""

_FIRST_NUMBER = {"train": 10000, "test": 20000}


class _ImageSpec(NamedTuple):
    """Specification of one image."""

    file: str
    """Path relative to the dataset's folder."""
    seed: int
    defect: str


def drawing_fingerprint(config: SurfacesConfig) -> str:
    """Return a hash of the configuration and of the source code that draws the images."""
    sha256 = hashlib.sha256(config.model_dump_json().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sha256.update(path.read_bytes())
    return sha256.hexdigest()[:12]


def write_surfaces(folder: Path, config: SurfacesConfig) -> bool:
    """Write the dataset of `config` to `folder`; the same configuration gives the same pixels.

    Across processor types a few pixels may differ by one level, because exponentials are rounded differently.

    The layout is KolektorSDD2's: `train/10000.png` with its mask `train/10000_GT.png`, `test/20000.png` and so on.
    Masks are 8-bit grey, 255 on the defect. `surfaces.json` describes each image. The folder is created only when the
    dataset is complete.

    Returns:
        True if the dataset was written, false if `folder` already contains the same dataset.

    Raises:
        InputError: `folder` exists with other content, or cannot be written.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        _check_same(folder, config)
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as unfinished:
            _write_all(unfinished, config)
            if os.name == "nt" and folder.is_dir():
                folder.rmdir()  # Windows cannot rename to an empty folder
    except OSError as error:
        if folder.is_dir() and any(folder.iterdir()):  # created by another process in the meantime
            _check_same(folder, config)
            return False
        raise InputError(f"{folder}: the dataset cannot be written ({error}); give another folder") from error
    return True


def _write_all(folder: Path, config: SurfacesConfig) -> None:
    for split in _FIRST_NUMBER:
        (folder / split).mkdir(parents=True)
    rows = []
    for spec in tqdm(_image_specs(config), desc="drawing surfaces", unit="image", disable=None):
        surface = _draw(spec, config)
        write_image(folder / spec.file, surface.image)
        write_image(folder / spec.file.replace(".png", "_GT.png"), surface.mask)
        rows.append({"file": spec.file, "seed": spec.seed, **_metadata(surface)})
    record = {"config": config.model_dump(), "drawing": drawing_fingerprint(config), "images": rows}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _image_specs(config: SurfacesConfig) -> list[_ImageSpec]:
    """Return the specifications of all images by file name: equal shares of defect kinds, shuffled with negatives."""
    rng = np.random.default_rng(config.seed)
    specs = []
    for split, negatives, positives in (
        ("train", config.train_negatives, config.train_positives),
        ("test", config.test_negatives, config.test_positives),
    ):
        defects = [""] * negatives + [KINDS[number % len(KINDS)] for number in range(positives)]
        for number, index in enumerate(rng.permutation(len(defects)), start=_FIRST_NUMBER[split]):
            specs.append(_ImageSpec(f"{split}/{number}.png", int(rng.integers(2**53)), defects[index]))
    return specs


def _draw(spec: _ImageSpec, config: SurfacesConfig) -> Surface:
    if config.surface == MIXED:
        return draw_surface(config.width, config.height, spec.seed, spec.defect)
    return draw_surface(config.width, config.height, spec.seed, spec.defect, config.surface, product=config.seed)


def _metadata(surface: Surface) -> dict[str, object]:
    names = [field.name for field in fields(surface) if field.name not in ("image", "mask")]
    return {name: getattr(surface, name) for name in names}


def _check_same(folder: Path, config: SurfacesConfig) -> None:
    """Reject a folder unless it contains the complete dataset of `config`, drawn by this code."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        same = record["config"] == config.model_dump() and record.get("drawing") == drawing_fingerprint(config)
        files = [str(row["file"]) for row in record["images"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: exists and is not a surfaces dataset; give a new folder, or empty this one"
        ) from error
    if not same:
        raise InputError(
            f"{folder}: contains surfaces of another configuration or version, see its {RECORD}; "
            "give a new folder, or remove this one"
        )
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise InputError(f"{folder}: {missing[0]} is missing from the dataset; remove the folder and run it again")
