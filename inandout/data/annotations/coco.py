"""Read datasets with COCO annotations: masks as run lengths or polygons, or boxes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inandout.data.annotations.samples import Shape, split_of, to_sample
from inandout.data.annotations.shapes import decode_runs, fill_polygon, unpack_runs
from inandout.data.check import Problem
from inandout.data.images import Mask
from inandout.data.layouts import Scan
from inandout.data.manifest import Sample

_FIX = "correct or remove it"


def coco_files(folder: Path) -> list[Path]:
    """Return the COCO files of a dataset: in the folder, in `annotations/`, or in folders such as `train/`."""
    files = sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])
    return [path for path in files if {"images", "annotations", "categories"} <= _read(path).keys()]


def read_coco(folder: Path) -> Scan:
    """Read a dataset with COCO annotations; images without an annotation are good parts.

    The name of a file or of its folder gives the split. Images are found beside the file, in `images/`, or in a folder
    of the split. Every problem is reported; images with a problem are left out.
    """
    folder = folder.resolve()
    samples: list[Sample] = []
    problems: list[Problem] = []
    for path in coco_files(folder):
        found, wrong = _read_file(folder, path)
        samples += found
        problems += wrong
    return Scan(sorted(samples, key=lambda sample: sample.image), problems)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_file(folder: Path, path: Path) -> tuple[list[Sample], list[Problem]]:
    content, split = _read(path), split_of(path.stem, "" if path.parent == folder else path.parent.name)
    kinds = {each.get("id"): str(each.get("name")) for each in content["categories"]}
    images = {each.get("id"): each for each in content["images"]}
    shapes: dict[Any, list[Shape]] = {number: [] for number in images}
    problems: list[Problem] = []
    broken: list[Any] = []
    for place, annotation in enumerate(content["annotations"]):
        number = None
        try:
            number = annotation["image_id"]
            if number not in images:
                raise ValueError(f"image_id {number!r} is no image")
            if annotation.get("category_id") not in kinds:
                raise ValueError(f"category_id {annotation.get('category_id')!r} is no category")
            mask = _mask(annotation, int(images[number]["height"]), int(images[number]["width"]))
            shapes[number].append(Shape(kinds[annotation["category_id"]], mask))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            name = annotation.get("id", place) if isinstance(annotation, dict) else place
            problems.append(Problem(path, f"annotation {name}: {error}", _FIX))
            broken.append(number)
    samples = []
    for number, each in images.items():
        if number in broken:
            continue
        name = str(each.get("file_name"))
        places = [path.parent, path.parent / "images", folder, folder / "images", folder / split, folder / path.stem]
        image = next((place / name for place in places if (place / name).is_file()), None)
        if image is None:
            problems.append(Problem(path, f"image {name} is not found", "put it beside the file or in images/"))
        else:
            samples.append(to_sample(image, split, shapes[number]))
    return samples, problems


def _mask(annotation: Mapping[str, Any], height: int, width: int) -> Mask:
    """Return the mask (height, width) of an annotation; raises a KeyError, TypeError or ValueError if it is invalid."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"size {segmentation['size']} is not that of the image, {[height, width]}")
        counts = segmentation["counts"]
        mask = decode_runs(unpack_runs(counts) if isinstance(counts, str) else counts, height, width)
    elif segmentation:
        polygons = [fill_polygon(np.array(each, float).reshape(-1, 2), height, width) for each in segmentation]
        mask = np.logical_or.reduce(polygons)
    else:
        left, top, wide, high = annotation["bbox"]
        box = np.array([(left, top), (left + wide, top), (left + wide, top + high), (left, top + high)], float)
        mask = fill_polygon(box, height, width)
    if not mask.any():
        raise ValueError("its mask is empty")
    return mask
