"""Read datasets in known layouts: a CSV manifest, KolektorSDD2, MVTec-AD, or folders `good` and `defect`.

The label comes from the mask, the layout's folder or the manifest, never from another part of a path. Hidden files and
files with other suffixes are ignored. Images in nested folders that the layout does not define are reported as problems
and not used. Broken links are kept, so that `inandout.data.check` reports them.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from inandout.data.check import Problem, describe
from inandout.data.images import IMAGE_SUFFIXES, read_mask
from inandout.data.manifest import Sample, Split, read_manifest
from inandout.errors import InputError

KSDD2_COUNTS: dict[Split, int] = {"train": 2331, "test": 1004}
"""Number of images in the official KolektorSDD2, without the stray copy in its zip."""

LAYOUTS = (
    "a manifest (.csv with the columns image and label); "
    "KolektorSDD2 (train/NAME.png with train/NAME_GT.png, same for test/); "
    "MVTec-AD (train/good, test/good, test/KIND, ground_truth/KIND/NAME_mask.png); "
    "or folders good/ and defect/ (or defect/KIND/), optionally with masks of the same names in mask/"
)

_log = logging.getLogger(__name__)


class Scan(NamedTuple):
    """Usable samples of a dataset, and problems of the others."""

    samples: list[Sample]
    problems: list[Problem]


def scan_data(path: Path) -> Scan:
    """Read a dataset in one of the `LAYOUTS`, ordered by file name.

    Images and masks that do not match are reported as problems and left out.

    Raises:
        InputError: the layout is unknown, the manifest cannot be read, or there is no usable image.
    """
    if path.suffix.lower() == ".csv":
        return Scan(read_manifest(path), [])
    if (path / "train" / "good").is_dir() and (path / "test").is_dir():
        scan = read_mvtec(path)
    elif (path / "train").is_dir() and (path / "test").is_dir():
        scan = read_ksdd2(path, official=not (path / "surfaces.json").is_file())
    elif (path / "good").is_dir() and (path / "defect").is_dir():
        scan = read_folders(path)
    else:
        raise InputError(f"{path}: {'unknown layout' if path.exists() else 'no such folder'}; give {LAYOUTS}")
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
    problems = _unknown_folders([folder / split for split in KSDD2_COUNTS])
    for split, expected in KSDD2_COUNTS.items():
        images, masks = _ksdd2_files(folder / split)
        if official and len(images) != expected:
            what = f"found {len(images)} images, KolektorSDD2 has {expected}"
            problems.append(Problem(folder / split, what, "download it again, or use a manifest for other data"))
        problems += [
            Problem(path, "not a .png file, as KolektorSDD2 requires", "convert it, or use a manifest")
            for path in _images(folder / split)
            if path.suffix.lower() != ".png"
        ]
        problems += _unpaired(images, masks)
        paired = [(images[name], masks[name]) for name in images if name in masks]
        with ThreadPoolExecutor() as executor:
            labels = list(executor.map(_label, [mask for _, mask in paired]))
        problems += [label for label in labels if isinstance(label, Problem)]
        samples += [
            Sample(image=image, mask=mask, label=label, split=split)
            for (image, mask), label in zip(paired, labels, strict=True)
            if isinstance(label, int)
        ]
    return Scan(samples, problems)


def read_mvtec(folder: Path) -> Scan:
    """Read the MVTec-AD layout; the label is 0 in `good` and 1 in other folders, named by the kind of defect.

    Masks are required for all defects if the folder `ground_truth` exists.
    """
    folder = folder.resolve()
    truth = folder / "ground_truth"
    samples = [Sample(image=path, label=0, split="train") for path in _images(folder / "train" / "good")]
    samples += [Sample(image=path, label=0, split="test") for path in _images(folder / "test" / "good")]
    problems = [
        Problem(path, "folder other than good/ in train/", "move it to test/")
        for path in _folders(folder / "train")
        if path.name != "good"
    ]
    kinds = sorted({path.name for path in (*_folders(folder / "test"), *_folders(truth))} - {"good"})
    normal = [folder / "train" / "good", folder / "test" / "good"]
    problems += _unknown_folders([*normal, *(part / kind for part in (folder / "test", truth) for kind in kinds)])
    for kind in kinds:
        images = _images(folder / "test" / kind)
        masks = {path.stem.removesuffix("_mask"): path for path in _images(truth / kind)}
        if truth.is_dir():
            problems += _unpaired({path.stem: path for path in images}, masks)
            images = [path for path in images if path.stem in masks]
        samples += [
            Sample(image=path, mask=masks.get(path.stem), label=1, defect=kind, split="test") for path in images
        ]
    return Scan(samples, problems)


def read_folders(folder: Path) -> Scan:
    """Read folders `good` (label 0) and `defect` (label 1), without a split; `defect/KIND` names the kind of defect.

    Masks are optional. The mask of `defect/NAME` is `mask/NAME`, of `defect/KIND/NAME` `mask/KIND/NAME` or `mask/NAME`.
    A mask that matches no image or several images is a problem.
    """
    folder = folder.resolve()
    samples = [Sample(image=path, label=0) for path in _images(folder / "good")]
    for kind in ("", *(path.name for path in _folders(folder / "defect"))):
        masks = {path.stem: path for part in ("", kind) for path in _images(folder / "mask" / part)}
        samples += [
            Sample(image=path, mask=masks.get(path.stem), label=1, defect=kind)
            for path in _images(folder / "defect" / kind)
        ]
    uses = Counter(sample.mask for sample in samples)
    every_mask = [path for part in (folder / "mask", *_folders(folder / "mask")) for path in _images(part)]
    problems = [
        Problem(mask, f"mask matches {uses[mask] or 'no'} images", "keep one mask per image in defect/")
        for mask in every_mask
        if uses[mask] != 1
    ]
    bad = {problem.path for problem in problems}
    parts = (folder / "defect", folder / "mask")
    problems += _unknown_folders([folder / "good", *parts, *(kind for part in parts for kind in _folders(part))])
    return Scan([sample for sample in samples if sample.mask not in bad], problems)


def _ksdd2_files(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return images and masks by their common name, without the stray copies in the official zip."""
    paths = _images(folder)
    copies = [path for path in paths if path.stem.endswith(" (copy)")]
    if copies:
        _log.warning("%s: ignored %s", folder, ", ".join(path.name for path in copies))
    kept = [path for path in paths if path not in copies and path.suffix.lower() == ".png"]
    images = {path.stem: path for path in kept if not path.stem.endswith("_GT")}
    masks = {path.stem.removesuffix("_GT"): path for path in kept if path.stem.endswith("_GT")}
    return images, masks


def _unknown_folders(read: Sequence[Path]) -> list[Problem]:
    """Report folders with images that are subfolders of the `read` ones but are not read themselves."""
    known = {folder.resolve() for folder in read}
    return [
        Problem(path, "folder with images that the layout does not define", "move the images up, or use a manifest")
        for folder in read
        for path in _folders(folder)
        if path.resolve() not in known and _contains_images(path)
    ]


def _contains_images(folder: Path) -> bool:
    """Return whether a folder or its subfolders contain an image; links to subfolders are not followed."""
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".") for name in files):
            return True
    return False


def _label(mask: Path) -> int | Problem:
    try:
        return int(read_mask(mask).any())
    except InputError as error:
        return Problem.of(mask, error)


def _unpaired(images: Mapping[str, Path], masks: Mapping[str, Path]) -> list[Problem]:
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


def _images(folder: Path) -> list[Path]:
    """Return the images directly in a folder, sorted by name; empty if the folder does not exist."""
    return [path for path in _entries(folder) if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()]


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
