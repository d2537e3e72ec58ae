"""Everything that is wrong with a data set, listed at once and before anything long starts."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from tqdm import tqdm

from inandout.data.duplicates import Thumbnail, similar_pairs, thumbnail
from inandout.data.images import MAX_PIXELS, read_image, read_mask
from inandout.data.manifest import Sample, Split, digest
from inandout.errors import InputError

SMALLEST_SIDE = 32
"""Pixels; a smaller image has nothing a defect could be seen in."""


_KEPT_FIRST: tuple[Split, ...] = ("test", "val", "train", "")
"""Of two images that cannot both stay, the one of the earlier split does: a test part is not changed lightly."""


class Problem(NamedTuple):
    """One thing that is wrong with one file or folder, and what to do about it."""

    path: Path
    what: str
    fix: str
    kind: Literal["error", "leak", "remark"] = "error"
    """`leak`: the image shows the same thing as one of another split. `remark`: worth a look, but can be used."""

    @classmethod
    def of(cls, path: Path, error: InputError) -> "Problem":
        """The problem an error of `inandout.data.images` speaks of: its message is 'path: what; fix'."""
        what, _, fix = str(error).removeprefix(f"{path}: ").rpartition("; ")
        return cls(path, what, fix) if what else cls(path, fix, "put it back or remove its row")


class _Seen(NamedTuple):
    """What one look at one sample found."""

    problems: list[Problem]
    content: str
    """`digest` of the image, "" where it cannot be read."""
    small: Thumbnail | None
    """None where the image cannot be decoded."""


def check(samples: Sequence[Sample], max_pixels: int = MAX_PIXELS) -> list[Problem]:
    """List all that is wrong: files, masks, classes, groups and images that are in two splits.

    Every file is decoded once. Without a split, near-duplicates are no problem: grouping keeps them together
    (`inandout.data.duplicates.group_near_duplicates`). No positives in training is none either: that is zero-shot.
    """
    with ThreadPoolExecutor() as executor:
        looks = executor.map(lambda sample: _look(sample, max_pixels), samples)
        seen = list(tqdm(looks, total=len(samples), desc="checking images", unit="", disable=None, delay=2))
    problems = [problem for one in seen for problem in one.problems]
    return [*problems, *class_problems(samples), *_group_problems(samples), *_repeats(samples, seen)]


def without_problems(samples: Sequence[Sample], problems: Sequence[Problem]) -> list[Sample]:
    """The samples that can be used: those with an error go, and those that leak with all of their group and split."""
    bad = {problem.path for problem in problems if problem.kind != "remark"}
    leaking = {problem.path for problem in problems if problem.kind == "leak"}
    parts = {(sample.group, sample.split) for sample in samples if sample.group and sample.image in leaking}
    return [
        sample
        for sample in samples
        if sample.image not in bad and sample.mask not in bad and (sample.group, sample.split) not in parts
    ]


def describe(problems: Sequence[Problem], at_most: int | None = None) -> str:
    """One line a problem for a terminal, the first `at_most` of them with a note of how many were left out."""
    lines = [_printable(f"{problem.path}: {problem.what}; {problem.fix}") for problem in problems[:at_most]]
    left_out = len(problems) - len(lines)
    return "\n".join([*lines, f"... and {left_out} more"] if left_out else lines)


def _look(sample: Sample, max_pixels: int) -> _Seen:
    """Decode one image and its mask."""
    try:
        image = read_image(sample.image, max_pixels)
    except InputError as error:
        problem = _not_a_image(sample.image) or Problem.of(sample.image, error)
        return _Seen([problem, *_mask_problems(sample, None, max_pixels)], "", None)
    height, width = image.shape[:2]
    problems = list(_mask_problems(sample, (height, width), max_pixels))
    if min(height, width) < SMALLEST_SIDE:
        what = f"{width}x{height} is under {SMALLEST_SIDE} px a side"
        problems.insert(0, Problem(sample.image, what, "use a larger image or remove it"))
    return _Seen(problems, digest(sample.image), thumbnail(image))


def _not_a_image(path: Path) -> Problem | None:
    """A plainer word than the decoder's for files that were never images."""
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
    """Problems of a mask, against the (H, W) of its image where that is known."""
    if sample.mask is None:
        return
    try:
        mask = read_mask(sample.mask, max_pixels)
    except InputError as error:
        yield _not_a_image(sample.mask) or Problem.of(sample.mask, error)
        return
    if size is not None and mask.shape != size:
        what = f"the mask is {mask.shape[1]}x{mask.shape[0]}, its image {sample.image.name} is {size[1]}x{size[0]}"
        yield Problem(sample.mask, what, "make both the same size")
    if sample.label == 1 and not mask.any():
        what = "the label says defect, but the mask is all black"
        yield Problem(sample.mask, what, "the label is used; correct it or the mask", "remark")
    if sample.label == 0 and mask.any():
        yield Problem(sample.mask, "the label says no defect, but the mask marks one", "correct the label or the mask")


def class_problems(samples: Sequence[Sample]) -> Iterator[Problem]:
    """Classes with no image or a single one, in the splits that need them; no file is read.

    One positive to train on, and a validation part of one class, are remarks: both can be used.
    """
    counts = Counter((sample.split, sample.label) for sample in samples)
    where = Path(os.path.commonpath([sample.image.parent for sample in samples])) if samples else Path()
    undivided = any(sample.split == "" for sample in samples)
    needed: list[tuple[Split, int]] = [("train", 0), ("test", 0), ("test", 1)]
    if undivided:
        needed = [("", 0), ("", 1)]
    for split, label in needed:
        count = counts[split, label]
        if count < 2:
            kind = "with a defect" if label else "without a defect"
            part = f"the {split} split" if split else "the data set"
            what = f"{part} has {'one image' if count else 'no image'} {kind}"
            yield Problem(where, what, "two are the least that can be used; add images")
    if counts["train", 1] == 1:
        what = "the train split has one image with a defect: one-shot; few conclusions"
        yield Problem(where, what, "add images, or use shot=zero", "remark")
    if (counts["val", 0] == 0) != (counts["val", 1] == 0):
        kind = "with a defect" if counts["val", 0] else "without a defect"
        what = f"the val split has no image {kind}; thresholds chosen on it mean little"
        yield Problem(where, what, "add images, or leave out the val split to have one cut from train", "remark")


def _group_problems(samples: Sequence[Sample]) -> Iterator[Problem]:
    """Groups that span two splits."""
    first: dict[str, Sample] = {}
    reported = set()
    for sample in samples:
        other = first.setdefault(sample.group, sample)
        if sample.group and sample.split != other.split and sample.group not in reported:
            reported.add(sample.group)
            what = f"group {sample.group!r} is in {sample.split or 'no split'}, and in {other.split or 'no split'}"
            yield Problem(sample.image, f"{what} with {other.image}", "keep all of a group in one split")


def _repeats(samples: Sequence[Sample], seen: Sequence[_Seen]) -> Iterator[Problem]:
    """The same content listed twice, and near-duplicates in two splits."""
    first: dict[str, int] = {}
    for i, one in enumerate(seen):
        other = first.setdefault(one.content, i) if one.content else i
        if other != i:
            yield _repeat(samples[other], samples[i], "the same content as", "keep one of them")
    rows = [i for i, one in enumerate(seen) if one.small is not None]
    pairs = similar_pairs([small for one in seen if (small := one.small) is not None]).tolist()
    reported: set[Path] = set()
    for i, j in ((rows[a], rows[b]) for a, b in pairs):
        if samples[i].split != samples[j].split and seen[i].content != seen[j].content:
            fix = "put both in one split, or leave this one out"
            problem = _repeat(samples[i], samples[j], "shows the same thing as", fix)
            if problem.path not in reported:
                reported.add(problem.path)
                yield problem


def _repeat(one: Sample, other: Sample, what: str, fix: str) -> Problem:
    """The one of two alike that should go."""
    kept, out = sorted((one, other), key=lambda sample: _KEPT_FIRST.index(sample.split))
    if kept.split == out.split:
        return Problem(out.image, f"{what} {kept.image}", fix)
    places = f"(one in {out.split or 'no split'}, one in {kept.split or 'no split'})"
    return Problem(out.image, f"{what} {kept.image} {places}", fix, "leak")


def _printable(text: str) -> str:
    """Text whose control characters, line breaks and undecodable bytes cannot harm a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
