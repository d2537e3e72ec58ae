"""Read images annotated with LabelMe: a JSON file beside each image."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inandout.data.annotations.samples import Shape, split_of, to_sample
from inandout.data.annotations.shapes import fill_polygon
from inandout.data.check import Problem
from inandout.data.images import Mask
from inandout.data.layouts import Scan, folders_in, images_in
from inandout.data.manifest import Sample


def labelme_folders(folder: Path) -> list[Path]:
    """Return the folder and its subfolders if images have a LabelMe file beside them."""
    return [each for each in (folder, *folders_in(folder)) if any(_content(path) for path in images_in(each))]


def read_labelme(folder: Path) -> Scan:
    """Read images with LabelMe files: polygons, rectangles and circles; a file without shapes is a good part.

    The name of a subfolder gives the split. Every problem is reported; images with a problem, or without a file, are
    left out.
    """
    folder = folder.resolve()
    samples: list[Sample] = []
    problems: list[Problem] = []
    for each in labelme_folders(folder):
        for image in images_in(each):
            content = _content(image)
            if content is None:
                fix = "save it in LabelMe, without shapes if it is a good part, or remove it"
                problems.append(Problem(image, "has no LabelMe file", fix))
                continue
            shapes, wrong = _shapes(image.with_suffix(".json"), content)
            problems += wrong
            if not wrong:
                samples.append(to_sample(image, "" if each == folder else split_of(each.name), shapes))
    return Scan(samples, problems)


def _content(image: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(image.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and {"shapes", "imageHeight", "imageWidth"} <= content.keys() else None


def _shapes(path: Path, content: Mapping[str, Any]) -> tuple[list[Shape], list[Problem]]:
    shapes, problems = [], []
    for number, shape in enumerate(content["shapes"], start=1):
        try:
            mask = _mask(shape, int(content["imageHeight"]), int(content["imageWidth"]))
            shapes.append(Shape(str(shape["label"]), mask))
        except (KeyError, TypeError, ValueError) as error:
            problems.append(Problem(path, f"shape {number}: {error}", "correct or remove it"))
    return shapes, problems


def _mask(shape: Mapping[str, Any], height: int, width: int) -> Mask:
    points, kind = np.array(shape["points"], float).reshape(-1, 2), shape.get("shape_type", "polygon")
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    elif kind == "circle":
        centre, edge = points
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        points = centre + np.linalg.norm(edge - centre) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    elif kind != "polygon":
        raise ValueError(f"shape_type {kind} is not supported; use polygon, rectangle or circle")
    mask = fill_polygon(points, height, width)
    if not mask.any():
        raise ValueError("its mask is empty")
    return mask
