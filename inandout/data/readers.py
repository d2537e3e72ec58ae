"""Read datasets in known layouts: a CSV manifest, folders `good` and `defect`, and those of public datasets.

The label comes from the mask, the layout's folder or the manifest, never from another part of a path. Hidden files and
files with other suffixes are ignored. Images in nested folders that the layout does not define are reported as problems
and not used. Broken links are kept, so that `inandout.data.check` reports them.
"""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inandout.data.annotations.coco import coco_files, read_coco
from inandout.data.annotations.labelme import labelme_folders, read_labelme
from inandout.data.annotations.yolo import read_yolo, yolo_folders
from inandout.data.check import Problem, describe
from inandout.data.layouts import (
    Scan,
    by_stem,
    folders_in,
    images_in,
    ksdd_parts,
    mask_label,
    mvtec_layout,
    read_ksdd,
    read_mvtec,
    read_visa,
    repeated_stems,
    unknown_folders,
    unpaired,
)
from inandout.data.manifest import Sample, Split, read_manifest
from inandout.errors import InputError

KSDD2_COUNTS: dict[Split, int] = {"train": 2331, "test": 1004}
"""Number of images in the official KolektorSDD2, without the stray copy in its zip."""

LAYOUTS = (
    "a manifest (.csv with the columns image and label); "
    "KolektorSDD2 (train/NAME.png with train/NAME_GT.png, same for test/); "
    "MVTec-AD (train/good, test/good, test/KIND, ground_truth/KIND/NAME_mask.png), MVTec LOCO, MVTec AD 2, BTAD; "
    "VisA (Data/Images/Normal, Data/Images/Anomaly, Data/Masks/Anomaly); KolektorSDD (kos01/Part0.jpg, "
    "kos01/Part0_label.bmp); or folders good/ and defect/ (or defect/KIND/), optionally with masks of the same names "
    "in mask/; or annotations of COCO (annotations/NAME.json), YOLO (images/ and labels/) or LabelMe (NAME.json beside "
    "NAME.png)"
)

_log = logging.getLogger(__name__)


def scan_data(path: Path) -> Scan:
    """Read a dataset in one of the `LAYOUTS`, ordered by file name.

    Images and masks that do not match are reported as problems and left out.

    Raises:
        InputError: the layout is unknown, the manifest cannot be read, or there is no usable image.
    """
    if path.suffix.lower() == ".csv":
        return Scan(read_manifest(path), [])
    if (layout := mvtec_layout(path)) is not None:
        scan = read_mvtec(path, layout)
    elif coco_files(path):
        scan = read_coco(path)
    elif yolo_folders(path):
        scan = read_yolo(path)
    elif (path / "Data" / "Images" / "Normal").is_dir():
        scan = read_visa(path)
    elif (path / "train").is_dir() and (path / "test").is_dir() and not _nested_only(path / "train"):
        scan = read_ksdd2(path, official=not (path / "surfaces.json").is_file())
    elif (path / "good").is_dir() and (path / "defect").is_dir():
        scan = read_folders(path)
    elif ksdd_parts(path):
        scan = read_ksdd(path)
    elif labelme_folders(path):
        scan = read_labelme(path)
    else:
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise InputError(f"{path}: {'unknown layout' if path.exists() else f'no such folder{where}'}; give {LAYOUTS}")
    if not scan.samples:
        raise InputError("\n".join([f"{path}: no usable image; give {LAYOUTS}", describe(scan.problems, 20)]).strip())
    return scan


def read_ksdd2(folder: Path, official: bool) -> Scan:
    """Read the KolektorSDD2 layout; the label is 1 if any mask pixel is not black.

    Args:
        folder: contains `train` and `test`.
        official: report a problem if the number of images differs from the official KolektorSDD2.
    """
    folder = folder.resolve()
    samples: list[Sample] = []
    problems = unknown_folders([folder, *(folder / split for split in KSDD2_COUNTS)])
    for split, expected in KSDD2_COUNTS.items():
        images, masks = _ksdd2_files(folder / split)
        if official and len(images) != expected:
            what = f"found {len(images)} images, KolektorSDD2 has {expected}"
            problems.append(Problem(folder / split, what, "download it again, or use a manifest for other data"))
        problems += [
            Problem(path, "not a .png file, as KolektorSDD2 requires", "convert it, or use a manifest")
            for path in images_in(folder / split)
            if path.suffix.lower() != ".png"
        ]
        problems += unpaired(images, masks)
        paired = [(images[name], masks[name]) for name in images if name in masks]
        with ThreadPoolExecutor() as executor:
            labels = list(executor.map(mask_label, [mask for _, mask in paired]))
        problems += [label for label in labels if isinstance(label, Problem)]
        samples += [
            Sample(image=image, mask=mask, label=label, split=split)
            for (image, mask), label in zip(paired, labels, strict=True)
            if isinstance(label, int)
        ]
    return Scan(samples, problems)


def read_folders(folder: Path) -> Scan:
    """Read folders `good` (label 0) and `defect` (label 1), without a split; `defect/KIND` names the kind of defect.

    Masks are optional. The mask of `defect/NAME` is `mask/NAME` or `mask/NAME_mask`, of `defect/KIND/NAME`
    `mask/KIND/NAME` or `mask/NAME`.
    A mask that matches no image or several images is a problem.
    """
    folder = folder.resolve()
    samples = [Sample(image=path, label=0) for path in images_in(folder / "good")]
    for kind in ("", *(path.name for path in folders_in(folder / "defect"))):
        masks = by_stem([path for part in ("", kind) for path in images_in(folder / "mask" / part)], "_mask")
        samples += [
            Sample(image=path, mask=masks.get(path.stem), label=1, defect=kind)
            for path in images_in(folder / "defect" / kind)
        ]
    uses = Counter(sample.mask for sample in samples)
    every_mask = [path for part in (folder / "mask", *folders_in(folder / "mask")) for path in images_in(part)]
    problems = [
        Problem(mask, f"mask matches {uses[mask] or 'no'} images", "keep one mask per image in defect/")
        for mask in every_mask
        if uses[mask] != 1
    ]
    problems += repeated_stems([*every_mask, *(sample.image for sample in samples if sample.label == 1)], {"_mask": ""})
    bad = {problem.path for problem in problems}
    parts = (folder / "defect", folder / "mask")
    problems += unknown_folders(
        [folder, folder / "good", *parts, *(kind for part in parts for kind in folders_in(part))]
    )
    usable = [sample for sample in samples if sample.mask not in bad and sample.image not in bad]
    return Scan(usable, problems)


def _nested_only(folder: Path) -> bool:
    """Return whether a folder has images in subfolders only."""
    return not images_in(folder) and bool(unknown_folders([folder]))


def _ksdd2_files(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return images and masks by their common name, without the stray copies in the official zip."""
    paths = images_in(folder)
    copies = [path for path in paths if path.stem.endswith(" (copy)")]
    if copies:
        _log.warning("%s: ignored %s", folder, ", ".join(path.name for path in copies))
    kept = [path for path in paths if path not in copies and path.suffix.lower() == ".png"]
    images = {path.stem: path for path in kept if not path.stem.endswith("_GT")}
    masks = {path.stem.removesuffix("_GT"): path for path in kept if path.stem.endswith("_GT")}
    return images, masks
