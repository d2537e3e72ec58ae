"""Data sets as people have them, to samples: a CSV manifest, KolektorSDD2, MVTec-AD, or folders `good` and `defect`.

A label comes from a mask, from the layout's own folder of the image, or from the manifest's column; never from
another part of a path. Hidden files and files with other suffixes are ignored. Images where the layout has no place
for them, in a folder within its folders, are not used and are a problem. An image that is a broken link is kept, so
that `inandout.data.check` can name it.
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
"""Images in the official KolektorSDD2, without the copy that its zip holds by mistake."""

LAYOUTS = (
    "a manifest (.csv with the columns image and label); "
    "KolektorSDD2 (train/NAME.png with train/NAME_GT.png, and test/ likewise); "
    "MVTec-AD (train/good, test/good, test/KIND, ground_truth/KIND/NAME_mask.png); "
    "or folders good/ and defect/ (or defect/KIND/), where mask/ may hold masks of the same names"
)

_log = logging.getLogger(__name__)


class Scan(NamedTuple):
    """What a data set holds: the images that can be used, and what keeps others from being used."""

    samples: list[Sample]
    problems: list[Problem]


def scan_data(where: Path) -> Scan:
    """Read a data set in any of the known layouts, in an order that depends on names only.

    Images and masks that do not fit together are listed and left out, so that all are seen.

    Raises:
        InputError: an unknown layout, a manifest that cannot be read, or no image.
    """
    if where.suffix.lower() == ".csv":
        return Scan(read_manifest(where), [])
    if (where / "train" / "good").is_dir() and (where / "test").is_dir():
        scan = read_mvtec(where)
    elif (where / "train").is_dir() and (where / "test").is_dir():
        scan = read_ksdd2(where, official=not (where / "surfaces.json").is_file())
    elif (where / "good").is_dir() and (where / "defect").is_dir():
        scan = read_folders(where)
    else:
        raise InputError(f"{where}: {'unknown layout' if where.exists() else 'no such folder'}; give {LAYOUTS}")
    if not scan.samples:
        raise InputError("\n".join([f"{where}: no usable image; give {LAYOUTS}", describe(scan.problems, 20)]).strip())
    return scan


def read_ksdd2(folder: Path, official: bool) -> Scan:
    """KolektorSDD2's layout; the label is 1 where the mask has any pixel that is not black.

    Args:
        folder: holds `train` and `test`.
        official: the data are KolektorSDD2 itself; another number of images than it has is a problem.
    """
    folder = folder.resolve()
    samples: list[Sample] = []
    problems = _unknown_folders([folder / split for split in KSDD2_COUNTS])
    for split, expected in KSDD2_COUNTS.items():
        images, masks = _ksdd2_files(folder / split)
        if official and len(images) != expected:
            what = f"{len(images)} images found where KolektorSDD2 has {expected}"
            problems.append(Problem(folder / split, what, "download it again, or describe other data by a manifest"))
        problems += [
            Problem(path, "not a .png, which all of KolektorSDD2 is", "convert it, or describe the data by a manifest")
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
    """MVTec-AD's layout; the label is 0 in a folder `good` and 1 in any other, whose name is the kind of defect.

    Without a folder `ground_truth` no image has a mask; with one, every image of a defect needs its mask.
    """
    folder = folder.resolve()
    truth = folder / "ground_truth"
    samples = [Sample(image=path, label=0, split="train") for path in _images(folder / "train" / "good")]
    samples += [Sample(image=path, label=0, split="test") for path in _images(folder / "test" / "good")]
    problems = [
        Problem(path, "a folder of defects in train, which MVTec-AD does not have", "move it to test")
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
    """Folders `good` (label 0) and `defect` (label 1), without a split; a folder in `defect` names the kind of defect.

    A mask lies in `mask` under the name of its image in `defect`, in a folder of its kind or without one. Masks are
    optional, but one that belongs to no image, or to several, is a problem.
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
        Problem(mask, f"a mask of {uses[mask] or 'no'} images", "keep one mask for one image in defect/")
        for mask in every_mask
        if uses[mask] != 1
    ]
    bad = {problem.path for problem in problems}
    parts = (folder / "defect", folder / "mask")
    problems += _unknown_folders([folder / "good", *parts, *(kind for part in parts for kind in _folders(part))])
    return Scan([sample for sample in samples if sample.mask not in bad], problems)


def _ksdd2_files(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks by the name they share; the copies that the official zip holds by mistake are left out."""
    paths = _images(folder)
    copies = [path for path in paths if path.stem.endswith(" (copy)")]
    if copies:
        _log.warning("%s: left out %s", folder, ", ".join(path.name for path in copies))
    kept = [path for path in paths if path not in copies and path.suffix.lower() == ".png"]
    images = {path.stem: path for path in kept if not path.stem.endswith("_GT")}
    masks = {path.stem.removesuffix("_GT"): path for path in kept if path.stem.endswith("_GT")}
    return images, masks


def _unknown_folders(read: Sequence[Path]) -> list[Problem]:
    """Folders with images that lie in those that are read, and are not read themselves."""
    known = {folder.resolve() for folder in read}
    return [
        Problem(path, "a folder of images where the layout has none", "move them up, or describe them by a manifest")
        for folder in read
        for path in _folders(folder)
        if path.resolve() not in known and _holds_images(path)
    ]


def _holds_images(folder: Path) -> bool:
    """Whether an image lies in a folder or anywhere below it; links below it are not followed."""
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
    """Images without a mask and masks without an image, both by the name they should share."""
    return [
        *(Problem(images[name], "no mask", "add it, or remove the image") for name in images if name not in masks),
        *(
            Problem(masks[name], "a mask without an image", "add it, or remove the mask")
            for name in masks
            if name not in images
        ),
    ]


def _images(folder: Path) -> list[Path]:
    """Images lying directly in a folder, sorted by name; none where there is no such folder."""
    return [path for path in _entries(folder) if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()]


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
