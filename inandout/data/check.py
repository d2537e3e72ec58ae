"""Validate a dataset and list all its problems before a long run starts."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from tqdm import tqdm

from inandout.data.colour import blank_reason, is_saturated
from inandout.data.duplicates import Thumbnail, similar_pairs, thumbnail
from inandout.data.images import MAX_PIXELS, MIDDLE, ImageArray, decode_mask, read_image
from inandout.data.manifest import Sample, Split, digest
from inandout.errors import InputError

MIN_SIDE = 32
"""Minimum width and height of an image in pixels; defects are not visible in smaller ones."""

NEARLY_ALL = 0.9
"""Share of an image from which its mask is reported, because it may be inverted."""
TWELVE_BITS = 64
"""Level that no pixel of a 16-bit image reaches if the file holds values of 14 or fewer bits."""

_SPLIT_PRIORITY: tuple[Split, ...] = ("test", "val", "train", "")
"""Which of two duplicates stays: the one whose split comes first. The test split changes last."""


class Problem(NamedTuple):
    """A problem with a file or folder, and its fix."""

    path: Path
    what: str
    fix: str
    kind: Literal["error", "leak", "remark"] = "error"
    """`leak`: a duplicate or near-duplicate is in another split. `remark`: not an error, but worth checking."""

    @classmethod
    def of(cls, path: Path, error: InputError) -> "Problem":
        """Parse an error of `inandout.data.images`, whose message is 'path: what; fix'."""
        what, _, fix = str(error).removeprefix(f"{path}: ").rpartition("; ")
        return cls(path, what, fix) if what else cls(path, fix, "put it back or remove its row")


class _Inspection(NamedTuple):
    """Result of decoding one sample."""

    problems: list[Problem]
    content: str
    """`digest` of the image, "" if it cannot be decoded."""
    thumbnail: Thumbnail | None
    """None if the image cannot be decoded."""


def check(samples: Sequence[Sample], max_pixels: int = MAX_PIXELS) -> list[Problem]:
    """List problems of files, masks, classes and groups, and duplicates across splits.

    Every file is decoded once. Near-duplicates are allowed in datasets without a split, because
    `inandout.data.duplicates.group_near_duplicates` keeps them together. A training split without positives is allowed
    for zero-shot experiments.
    """
    with ThreadPoolExecutor() as executor:
        results = executor.map(lambda sample: _inspect(sample, max_pixels), samples)
        inspections = list(tqdm(results, total=len(samples), desc="checking images", unit="", disable=None, delay=2))
    problems = [problem for inspection in inspections for problem in inspection.problems]
    return [*problems, *class_problems(samples), *_group_problems(samples), *_duplicates(samples, inspections)]


def without_problems(samples: Sequence[Sample], problems: Sequence[Problem]) -> list[Sample]:
    """Drop samples with errors, and leaking samples together with the rest of their group in that split."""
    bad = {problem.path for problem in problems if problem.kind != "remark"}
    leaking = {problem.path for problem in problems if problem.kind == "leak"}
    parts = {(sample.group, sample.split) for sample in samples if sample.group and sample.image in leaking}
    return [
        sample
        for sample in samples
        if sample.image not in bad and sample.mask not in bad and (sample.group, sample.split) not in parts
    ]


def describe(problems: Sequence[Problem], at_most: int | None = None) -> str:
    """Format one line per problem for a terminal: the first `at_most`, then the number of omitted ones."""
    lines = [_printable(f"{problem.path}: {problem.what}; {problem.fix}") for problem in problems[:at_most]]
    omitted = len(problems) - len(lines)
    return "\n".join([*lines, f"... and {omitted} more"] if omitted else lines)


def _inspect(sample: Sample, max_pixels: int) -> _Inspection:
    """Decode an image and its mask."""
    try:
        image = read_image(sample.image, max_pixels)
    except InputError as error:
        problem = _non_image(sample.image) or Problem.of(sample.image, error)
        return _Inspection([problem, *_mask_problems(sample, None, max_pixels)], "", None)
    height, width = image.shape[:2]
    problems = list(_mask_problems(sample, (height, width), max_pixels))
    if min(height, width) < MIN_SIDE:
        what = f"the size is {width}x{height}, the minimum is {MIN_SIDE}x{MIN_SIDE}"
        problems.insert(0, Problem(sample.image, what, "use a larger image or remove it"))
    else:
        problems += _remarks(sample.image, image)
    return _Inspection(problems, digest(sample.image), thumbnail(image))


def _remarks(path: Path, image: ImageArray) -> Iterator[Problem]:
    """Report images that show little or nothing."""
    blank, highest = blank_reason(image), int(image.max())
    if blank == "flat" or highest == 0:
        yield Problem(path, f"the image is {'black' if highest == 0 else 'flat'}: it shows nothing", "remove it")
    elif blank == "black":
        what = f"the image is nearly black, its highest level is {highest} of 255"
        yield Problem(path, what, "check the exposure; stretch 10, 12 or 14-bit values to 16 bits", "remark")
    elif highest < TWELVE_BITS:
        what = f"the image is dark, its highest level is {highest} of 255"
        yield Problem(path, what, "check the exposure; stretch 10, 12 or 14-bit values to 16 bits", "remark")
    elif is_saturated(image):
        yield Problem(path, "most of the image is saturated (white)", "check the exposure", "remark")


def _non_image(path: Path) -> Problem | None:
    """Recognise empty, text and HTML files, for a clearer message than the decoder's."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except (OSError, ValueError):
        return None
    if not head:
        return Problem(path, "empty file (0 bytes)", "copy it again or remove it")
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        kind = "an HTML page" if b"<html" in head.lower() or b"<!doctype" in head.lower() else "text"
        return Problem(path, f"{kind}, not an image", "download it again or remove it")
    return None


def _mask_problems(sample: Sample, size: tuple[int, int] | None, max_pixels: int) -> Iterator[Problem]:
    """Check a mask against the label and, if known, the (H, W) `size` of its image."""
    if sample.mask is None:
        return
    try:
        mask, remark = decode_mask(sample.mask, max_pixels)
    except InputError as error:
        yield _non_image(sample.mask) or Problem.of(sample.mask, error)
        return
    if remark:
        fix = f"levels of {MIDDLE} and more count as the defect; save a black and white PNG to decide otherwise"
        yield Problem(sample.mask, remark, fix, "remark")
    if mask.mean() > NEARLY_ALL and size in (None, mask.shape):
        what = f"the mask marks {mask.mean():.0%} of the image"
        yield Problem(sample.mask, what, "invert it if it marks the good part of the image", "remark")
    if size is not None and mask.shape != size:
        what = f"the mask is {mask.shape[1]}x{mask.shape[0]}, its image {sample.image.name} is {size[1]}x{size[0]}"
        yield Problem(sample.mask, what, "make both the same size")
    if sample.label == 1 and not mask.any():
        what = "the label is 1 (defect), but the mask is empty"
        yield Problem(sample.mask, what, "the label takes precedence; correct the label or the mask", "remark")
    if sample.label == 0 and mask.any():
        what = "the label is 0 (no defect), but the mask marks a defect"
        yield Problem(sample.mask, what, "correct the label or the mask")


def class_problems(samples: Sequence[Sample]) -> Iterator[Problem]:
    """Report classes with fewer than two images in a split that requires them; no file is read.

    A training split with one positive and a validation split with one class are remarks.
    """
    counts = Counter((sample.split, sample.label) for sample in samples)
    folder = Path(os.path.commonpath([sample.image.parent for sample in samples])) if samples else Path()
    required: list[tuple[Split, int]] = [("train", 0), ("test", 0), ("test", 1)]
    if any(sample.split == "" for sample in samples):
        required = [("", 0), ("", 1)]
    for split, label in required:
        count = counts[split, label]
        if count < 2:
            kind = "with a defect" if label else "without a defect"
            part = f"the {split} split" if split else "the dataset"
            what = f"{part} has {'one image' if count else 'no image'} {kind}, the minimum is two"
            yield Problem(folder, what, "add images")
    if counts["train", 1] == 1:
        what = "the train split has one image with a defect (one-shot), so results are unreliable"
        yield Problem(folder, what, "add images, or use shot=zero", "remark")
    if (counts["val", 0] == 0) != (counts["val", 1] == 0):
        kind = "with a defect" if counts["val", 0] else "without a defect"
        what = f"the val split has no image {kind}, so thresholds fitted on it are unreliable"
        yield Problem(folder, what, "add images, or remove the val split to split one off from train", "remark")


def _group_problems(samples: Sequence[Sample]) -> Iterator[Problem]:
    """Report groups that span several splits."""
    first: dict[str, Sample] = {}
    reported = set()
    for sample in samples:
        other = first.setdefault(sample.group, sample)
        if sample.group and sample.split != other.split and sample.group not in reported:
            reported.add(sample.group)
            what = f"group {sample.group!r} is in {sample.split or 'no split'}, but {other.image} of the same group is"
            yield Problem(sample.image, f"{what} in {other.split or 'no split'}", "keep each group in one split")


def _duplicates(samples: Sequence[Sample], inspections: Sequence[_Inspection]) -> Iterator[Problem]:
    """Report files with the same content, and near-duplicates in different splits."""
    first: dict[str, int] = {}
    for i, inspection in enumerate(inspections):
        other = first.setdefault(inspection.content, i) if inspection.content else i
        if other != i:
            yield _duplicate(samples[other], samples[i], "the same content as", "keep one of them")
    rows = [i for i, inspection in enumerate(inspections) if inspection.thumbnail is not None]
    pairs = similar_pairs([small for inspection in inspections if (small := inspection.thumbnail) is not None]).tolist()
    reported: set[Path] = set()
    for i, j in ((rows[a], rows[b]) for a, b in pairs):
        if samples[i].split != samples[j].split and inspections[i].content != inspections[j].content:
            fix = "put both in one split, or remove this one"
            problem = _duplicate(samples[i], samples[j], "near-duplicate of", fix)
            if problem.path not in reported:
                reported.add(problem.path)
                yield problem


def _duplicate(first: Sample, second: Sample, what: str, fix: str) -> Problem:
    """Report the sample to remove from a pair of duplicates, by `_SPLIT_PRIORITY`."""
    kept, removed = sorted((first, second), key=lambda sample: _SPLIT_PRIORITY.index(sample.split))
    if kept.split == removed.split:
        return Problem(removed.image, f"{what} {kept.image}", fix)
    splits = f"(in {removed.split or 'no split'} and in {kept.split or 'no split'})"
    return Problem(removed.image, f"{what} {kept.image} {splits}", fix, "leak")


def _printable(text: str) -> str:
    """Escape control characters, line breaks and undecodable bytes for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
