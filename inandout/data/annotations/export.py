"""Write samples with masks in the formats of other programs."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from inandout.data.annotations.shapes import bounding_box, encode_runs, pack_runs, regions, trace_polygon
from inandout.data.config import AnnotationFormat
from inandout.data.images import Mask, read_image, read_mask, write_image
from inandout.data.manifest import Sample, write_manifest
from inandout.errors import InputError

PROVENANCE = "provenance.csv"
"""Manifest of the exported images, with origin, seed, prompt, sources and review of each."""


class _Image(NamedTuple):
    row: Sample
    height: int
    width: int
    defects: list[Mask]
    """Regions of the mask (H, W); empty for a good part."""
    kind: int
    """Number of the kind of defect."""


def write_annotated(rows: Sequence[Sample], folder: Path, kind: AnnotationFormat) -> int:
    """Write images and annotations to a new folder, and `PROVENANCE`.

    Defects without a visible mask are left out, because their annotation would be that of a good part.

    Returns:
        The number of exported images.

    Raises:
        InputError: the folder exists, no image has a usable mask, or two images have the same name.
    """
    if folder.exists():
        raise InputError(f"out = {folder}: already exists; give another folder")
    kinds = sorted({row.defect or "defect" for row in rows if row.label == 1})
    images = [image for row in rows if (image := _open(row, kinds)) is not None]
    if not images:
        raise InputError(f"no image of the {len(rows)} has a mask, which format = {kind} needs; export another pool")
    if len({image.row.image.stem for image in images}) < len(images):
        raise InputError("two images have the same name; rename one of them")
    places = _WRITERS[kind](images, kinds, folder)
    exported = [image.row.with_(image=place.resolve(), mask=None) for image, place in zip(images, places, strict=True)]
    write_manifest(exported, folder / PROVENANCE)
    return len(images)


def _open(row: Sample, kinds: Sequence[str]) -> _Image | None:
    height, width = read_image(row.image).shape[:2]
    if row.label == 0:
        return _Image(row, height, width, [], -1)
    defects = [*regions(read_mask(row.mask))] if row.mask else []
    return _Image(row, height, width, defects, kinds.index(row.defect or "defect")) if defects else None


def _copy(image: _Image, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(image.row.image, folder))


def _runs(image: _Image, defect: Mask) -> dict[str, Any]:
    return {"size": [image.height, image.width], "counts": pack_runs(encode_runs(defect))}


def _subsets(images: Sequence[_Image]) -> dict[str, list[_Image]]:
    found: dict[str, list[_Image]] = {}
    for image in images:
        found.setdefault(image.row.split or "default", []).append(image)
    return found


def _write_coco(images: Sequence[_Image], kinds: Sequence[str], folder: Path) -> list[Path]:
    places = {image.row.image: _copy(image, folder / "images") for image in images}
    for subset, members in _subsets(images).items():
        annotations = [
            {
                "image_id": number, "category_id": image.kind + 1, "iscrowd": 0, "segmentation": _runs(image, defect),
                "bbox": list(bounding_box(defect)), "area": int(defect.sum()),
            }
            for number, image in enumerate(members, start=1)
            for defect in image.defects
        ]  # fmt: skip
        content = {
            "info": {}, "licenses": [],
            "categories": [{"id": i, "name": name} for i, name in enumerate(kinds, start=1)],
            "images": [
                {"id": number, "file_name": image.row.image.name, "height": image.height, "width": image.width}
                for number, image in enumerate(members, start=1)
            ],
            "annotations": [{"id": i} | each for i, each in enumerate(annotations, start=1)],
        }  # fmt: skip
        _write_json(folder / "annotations" / f"instances_{subset}.json", content)
    return list(places.values())


def _write_yolo(images: Sequence[_Image], kinds: Sequence[str], folder: Path) -> list[Path]:
    places = []
    for image in images:
        subset = image.row.split or "train"
        places.append(_copy(image, folder / "images" / subset))
        lines = [
            " ".join(
                [str(image.kind), *map(repr, (trace_polygon(each) / (image.width, image.height)).ravel().tolist())]
            )
            for each in image.defects
        ]
        path = folder / "labels" / subset / f"{image.row.image.stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    subsets = sorted({image.row.split or "train" for image in images})
    content: dict[str, object] = {"path": ".", **{name: f"images/{name}" for name in subsets}}
    content["names"] = dict(enumerate(kinds))
    (folder / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return places


def _write_mvtec(images: Sequence[_Image], kinds: Sequence[str], folder: Path) -> list[Path]:
    wrong = [kind for kind in kinds if kind in ("good", ".", "..") or set(kind) & set("/\\")]
    if wrong:
        raise InputError(
            f"defect = {wrong[0]!r}: is no name for a folder of defects; rename it, or give another format"
        )
    (folder / "train" / "good").mkdir(parents=True)
    (folder / "test" / "good").mkdir(parents=True)
    places = []
    for image in images:
        if not image.defects:
            places.append(_copy(image, folder / ("test" if image.row.split == "test" else "train") / "good"))
            continue
        kind = kinds[image.kind]
        places.append(_copy(image, folder / "test" / kind))
        truth = folder / "ground_truth" / kind
        truth.mkdir(parents=True, exist_ok=True)
        assert image.row.mask
        write_image(truth / f"{image.row.image.stem}_mask.png", read_mask(image.row.mask))
    return places


def _write_datumaro(images: Sequence[_Image], kinds: Sequence[str], folder: Path) -> list[Path]:
    places = {
        image.row.image: _copy(image, folder / "images" / subset)
        for subset, members in _subsets(images).items()
        for image in members
    }
    labels = [{"name": name, "parent": "", "attributes": []} for name in kinds]
    for subset, members in _subsets(images).items():
        items = [
            {
                "id": image.row.image.stem, "attr": {},
                "image": {"path": image.row.image.name, "size": [image.height, image.width]},
                "annotations": [
                    {
                        "id": i, "type": "mask", "attributes": {}, "group": 0, "label_id": image.kind, "z_order": 0,
                        "rle": _runs(image, defect),
                    }
                    for i, defect in enumerate(image.defects)
                ],
            }
            for image in members
        ]  # fmt: skip
        content = {"info": {}, "categories": {"label": {"labels": labels, "attributes": []}}, "items": items}
        _write_json(folder / "annotations" / f"{subset}.json", content)
    return [places[image.row.image] for image in images]


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


_WRITERS: dict[AnnotationFormat, Callable[[Sequence[_Image], Sequence[str], Path], list[Path]]] = {
    "coco": _write_coco, "yolo": _write_yolo, "mvtec": _write_mvtec, "datumaro": _write_datumaro,
}  # fmt: skip
