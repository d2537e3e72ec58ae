"""Readers of public datasets: MVTec-AD and its relatives, VisA and KolektorSDD, and helpers for folders of images."""

import csv
import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inandout.data.check import Problem
from inandout.data.images import IMAGE_SUFFIXES, read_mask, write_image
from inandout.data.manifest import Sample, Split
from inandout.errors import InputError

_log = logging.getLogger(__name__)


class Scan(NamedTuple):
    """Usable samples of a dataset, and problems of the others."""

    samples: list[Sample]
    problems: list[Problem]


class MvtecLayout(NamedTuple):
    """Names of the folders of MVTec-AD or a relative of it."""

    good: str
    """Folder of parts without a defect."""
    test: str
    truth: str
    """Folder of the masks, by kind of defect."""
    validation: str = "validation"
    unlabelled: tuple[str, ...] = ()
    """Folders of the official dataset that have no labels."""


MVTEC = (
    MvtecLayout("good", "test", "ground_truth"),  # MVTec-AD, MVTec LOCO
    MvtecLayout("ok", "test", "ground_truth"),  # BTAD
    MvtecLayout("good", "test_public", "test_public/ground_truth", unlabelled=("test_private", "test_private_mixed")),
)


def mvtec_layout(folder: Path) -> MvtecLayout | None:
    """Return the layout of a folder of MVTec-AD or a relative, or None."""
    return next(
        (
            layout for layout in MVTEC
            if (folder / "train" / layout.good).is_dir() and (folder / layout.test).is_dir()
        ),
        None,
    )  # fmt: skip


def read_mvtec(folder: Path, layout: MvtecLayout = MVTEC[0]) -> Scan:
    """Read MVTec-AD, MVTec LOCO, MVTec AD 2 or BTAD.

    The label is 0 in the folder of good parts and 1 in other folders, named by the kind of defect. Masks are required
    for all defects if the folder of masks exists. Several masks of one image (MVTec LOCO) are united.
    """
    folder = folder.resolve()
    truth, test, normal = folder / layout.truth, folder / layout.test, []
    samples: list[Sample] = []
    problems: list[Problem] = []
    parts: list[tuple[str, Split]] = [("train", "train"), (layout.validation, "val"), (layout.test, "test")]
    for name, split in parts:
        normal.append(folder / name / layout.good)
        samples += [Sample(image=path, label=0, split=split) for path in images_in(normal[-1])]
    problems += [
        Problem(path, f"folder other than {layout.good}/ in {path.parent.name}/", f"move it to {layout.test}/")
        for name in ("train", layout.validation)
        for path in folders_in(folder / name)
        if path.name != layout.good
    ]
    kinds = sorted({path.name for path in (*folders_in(test), *folders_in(truth)) if path != truth} - {layout.good})
    for name in layout.unlabelled:
        if (folder / name).is_dir():
            _log.warning("%s: ignored, its images have no labels", folder / name)
    united = [path for kind in kinds for path in folders_in(truth / kind) if _images_of(path.name, test / kind)]
    known = [folder / name for name, _ in parts] + [folder / name for name in layout.unlabelled] + united
    read = [folder, test, truth, *normal, *(part / kind for part in (test, truth) for kind in kinds)]
    problems += unknown_folders(read, known)
    for kind in kinds:
        found, masks = images_in(test / kind), images_in(truth / kind)
        images, of_masks = by_stem(found), by_stem(masks, "_mask")
        of_masks |= {path.name: unite_masks(path) for path in united if path.parent.name == kind}
        repeated = repeated_stems(found, {}) + repeated_stems(masks, {"_mask": ""})
        problems += repeated
        bad = {problem.path for problem in repeated}
        if truth.is_dir():
            problems += unpaired(images, of_masks)
            images = {name: path for name, path in images.items() if name in of_masks}
        samples += [
            Sample(image=path, mask=of_masks.get(name), label=1, defect=kind, split="test")
            for name, path in images.items()
            if path not in bad and of_masks.get(name) not in bad
        ]
    return Scan(samples, problems)


def _images_of(stem: str, folder: Path) -> bool:
    return any(path.stem == stem for path in images_in(folder))


def unite_masks(folder: Path) -> Path:
    """Return the only mask in a folder, or a new file in `data/` with the union of all its masks."""
    masks = images_in(folder)
    if len(masks) == 1:
        return masks[0]
    content = hashlib.sha256(b"".join(path.read_bytes() for path in masks)).hexdigest()[:32]
    united = Path("data").resolve() / "united_masks" / f"{content}.png"
    if masks and not united.is_file():
        united.parent.mkdir(parents=True, exist_ok=True)
        write_image(united, np.logical_or.reduce([read_mask(path) for path in masks]))
    return united


def read_visa(folder: Path) -> Scan:
    """Read one object of VisA; the split comes from `split.csv` or `../split_csv/1cls.csv`, if there is one."""
    folder = folder.resolve()
    images, masks = folder / "Data" / "Images", images_in(folder / "Data" / "Masks" / "Anomaly")
    defects = images_in(images / "Anomaly")
    problems = unknown_folders([images, images / "Normal", images / "Anomaly"], [images / "Normal", images / "Anomaly"])
    problems += repeated_stems(defects, {}) + repeated_stems(masks, {})
    problems += unpaired(by_stem(defects), by_stem(masks))
    bad = {problem.path for problem in problems}
    by_name = by_stem(masks)
    samples = [Sample(image=path, label=0) for path in images_in(images / "Normal")]
    samples += [Sample(image=path, label=1, mask=by_name[path.stem]) for path in defects if path not in bad]
    splits = _visa_splits(folder)
    if not splits:
        return Scan(samples, problems)
    without = [sample.image for sample in samples if sample.image not in splits]
    problems += [
        Problem(path, "no row in the file of the split", "add the row, or remove the image") for path in without
    ]
    return Scan(
        [sample.with_(split=splits[sample.image]) for sample in samples if sample.image in splits], problems
    )  # fmt: skip


def _visa_splits(folder: Path) -> dict[Path, Split]:
    """Return the split of each image, from the columns `split` and `image` of the official files."""
    for path, base in ((folder / "split.csv", folder), (folder.parent / "split_csv" / "1cls.csv", folder.parent)):
        if path.is_file():
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
            if not rows or not {"split", "image"} <= rows[0].keys():
                raise InputError(f"{path}: needs the columns split and image, as the official file of VisA")
            wrong = {row["split"] for row in rows} - {"train", "test"}
            if wrong:
                raise InputError(f"{path}: the split is {sorted(map(str, wrong))}; give train or test")
            return {base / row["image"]: "train" if row["split"] == "train" else "test" for row in rows}
    return {}


def ksdd_parts(folder: Path) -> list[Path]:
    """Return the folders of the parts of KolektorSDD, `kos01`, `kos02` and so on."""
    return [path for path in folders_in(folder) if re.fullmatch(r"kos\d+", path.name)]


def read_ksdd(folder: Path) -> Scan:
    """Read KolektorSDD; the label is 1 if any mask pixel is not black, and the images of one folder show one part."""
    folder = folder.resolve()
    parts = ksdd_parts(folder)
    samples: list[Sample] = []
    problems = unknown_folders([folder, *parts], parts)
    for part in parts:
        paths = images_in(part)
        images = [path for path in paths if not path.stem.endswith("_label")]
        masks = [path for path in paths if path.stem.endswith("_label")]
        repeated = repeated_stems(images, {}) + repeated_stems(masks, {})
        problems += [*repeated, *unpaired(by_stem(images), of_masks := by_stem(masks, "_label"))]
        bad = {problem.path for problem in problems}
        for path in images:
            if path not in bad and (mask := of_masks[path.stem]) not in bad:
                label = mask_label(mask)
                if isinstance(label, Problem):
                    problems.append(label)
                else:
                    samples.append(Sample(image=path, mask=mask, label=label, group=part.name))
    return Scan(samples, problems)


def by_stem(paths: Sequence[Path], suffix: str = "") -> dict[str, Path]:
    """Return paths by their stem without `suffix`; see `repeated_stems` for paths that share a stem."""
    return {path.stem.removesuffix(suffix): path for path in paths}


def repeated_stems(paths: Sequence[Path], removed: Mapping[str, str]) -> list[Problem]:
    """Report all files of a folder that share a name without its extension and without the suffixes of `removed`."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        stem = path.stem
        for suffix in removed:
            stem = stem.removesuffix(suffix)
        groups.setdefault((path.parent, stem), []).append(path)
    return [
        Problem(
            path, f"has the same name as {' and '.join(other.name for other in group if other != path)}", "rename it"
        )
        for group in groups.values()
        if len(group) > 1
        for path in group
    ]


def unknown_folders(read: Sequence[Path], others: Sequence[Path] = ()) -> list[Problem]:
    """Report folders with images that are subfolders of the `read` ones, but neither read nor among `others`."""
    known = {folder.resolve() for folder in (*read, *others)}
    return [
        Problem(
            path,
            "folder with images that the layout does not define",
            "give each image a name of its own and move it up, or use a manifest",
        )
        for folder in read
        for path in folders_in(folder)
        if path.resolve() not in known and _contains_images(path)
    ]


def _contains_images(folder: Path) -> bool:
    """Return whether a folder or its subfolders contain an image; links to subfolders are not followed."""
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".") for name in files):
            return True
    return False


def mask_label(mask: Path) -> int | Problem:
    """Return 1 if a mask marks a defect, else 0, or why it cannot be read."""
    try:
        return int(read_mask(mask).any())
    except InputError as error:
        return Problem.of(mask, error)


def unpaired(images: Mapping[str, Path], masks: Mapping[str, Path]) -> list[Problem]:
    """Report images without a mask and masks without an image, both keyed by name."""
    return [
        *(
            Problem(images[name], "no mask for this image", "add the mask, or remove the image")
            for name in images
            if name not in masks
        ),
        *(
            Problem(masks[name], "no image for this mask", "add the image, or remove the mask")
            for name in masks
            if name not in images
        ),
    ]


def images_in(folder: Path) -> list[Path]:
    """Return the images directly in a folder, sorted by name; empty if the folder does not exist."""
    return [path for path in _entries(folder) if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()]


def folders_in(folder: Path) -> list[Path]:
    """Return the visible subfolders of a folder, sorted by name; empty if it does not exist."""
    return [path for path in _entries(folder) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
