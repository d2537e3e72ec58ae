"""Read datasets with YOLO labels: a text file for each image with boxes or polygons."""

from pathlib import Path

import numpy as np
import yaml

from inandout.data.annotations.samples import Shape, split_of, to_sample
from inandout.data.annotations.shapes import fill_polygon
from inandout.data.check import Problem
from inandout.data.images import Mask, read_image
from inandout.data.layouts import Scan, images_in
from inandout.data.manifest import Sample
from inandout.errors import InputError, brief


def yolo_folders(folder: Path) -> list[tuple[Path, Path]]:
    """Return the pairs of folders with images and labels: `images/train` and `labels/train`, or `train/images`, ..."""
    pairs = [(path, folder / "labels" / path.name) for path in sorted((folder / "images").glob("*"))]
    pairs += [(path, path.with_name("labels")) for path in sorted(folder.glob("*/images"))]
    pairs += [(folder / "images", folder / "labels")]
    return [(images, labels) for images, labels in pairs if labels.is_dir() and images_in(images)]


def read_yolo(folder: Path) -> Scan:
    """Read a dataset with YOLO labels; images with an empty or no label file are good parts.

    `names` of a YAML file in the folder gives the kinds of defects. Every problem is reported; images with a problem
    are left out.
    """
    folder = folder.resolve()
    kinds = _kinds(folder)
    samples: list[Sample] = []
    problems: list[Problem] = []
    for images, labels in yolo_folders(folder):
        split = split_of(str(images.relative_to(folder)))
        for image in images_in(images):
            path = labels / f"{image.stem}.txt"
            try:
                shapes, wrong = _shapes(path, image, kinds) if path.is_file() else ([], [])
            except InputError as error:
                shapes, wrong = [], [Problem.of(image, error)]
            except UnicodeDecodeError:
                shapes, wrong = [], [Problem(path, "is not UTF-8 text", "save it as UTF-8")]
            problems += wrong
            if not wrong:
                samples.append(to_sample(image, split, shapes))
    return Scan(samples, problems)


def _kinds(folder: Path) -> dict[int, str]:
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            names = content.get("names") if isinstance(content, dict) else None
            if isinstance(names, list):
                return {i: str(name) for i, name in enumerate(names)}
            if isinstance(names, dict):
                return {int(i): str(name) for i, name in names.items()}
        except (yaml.YAMLError, ValueError) as error:
            raise InputError(f"{path}: its names of classes cannot be read ({brief(error)}); correct it") from error
    return {}


def _shapes(path: Path, image: Path, kinds: dict[int, str]) -> tuple[list[Shape], list[Problem]]:
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    if not any(lines):
        return [], []
    height, width = read_image(image).shape[:2]
    shapes, problems = [], []
    for number, words in enumerate(lines, start=1):
        if words:
            try:
                kind = int(words[0])
                if kinds and kind not in kinds:
                    raise ValueError(f"class {kind} has no name")
                shapes.append(Shape(kinds.get(kind, str(kind)), _mask(words[1:], height, width)))
            except ValueError as error:
                problems.append(Problem(path, f"line {number}: {error}", "correct or remove it"))
    return shapes, problems


def _mask(words: list[str], height: int, width: int) -> Mask:
    values = np.array(words, float)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("a coordinate is not from 0 to 1")
    if len(values) == 4:
        x, y, wide, high = values
        left, right, top, bottom = x - wide / 2, x + wide / 2, y - high / 2, y + high / 2
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    elif len(values) >= 6 and len(values) % 2 == 0:
        points = values.reshape(-1, 2)
    else:
        raise ValueError(f"{len(values)} coordinates; a box has 4, a polygon 6 or more in pairs")
    mask = fill_polygon(points * (width, height), height, width)
    if not mask.any():
        raise ValueError("its mask is empty")
    return mask
