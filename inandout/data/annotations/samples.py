"""Samples from annotated images."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from inandout.data.images import Mask, write_image
from inandout.data.manifest import Sample, Split
from inandout.data.text import SPLITS


class Shape(NamedTuple):
    """An annotated defect."""

    kind: str
    mask: Mask
    """(H, W)."""


def to_sample(image: Path, split: Split, shapes: Sequence[Shape]) -> Sample:
    """Return the row of an image; without shapes it is a good part. The united mask is stored in `data/`."""
    if not shapes:
        return Sample(image=image, label=0, split=split)
    kinds = "+".join(sorted({shape.kind for shape in shapes}))
    mask = _store(np.logical_or.reduce([shape.mask for shape in shapes]))
    return Sample(image=image, mask=mask, label=1, defect=kinds, split=split)


def split_of(*names: str) -> Split:
    """Return the split that the first name with a word such as `train` or `valid` gives, else ""."""
    for name in names:
        for word in re.findall("[a-z]+", name.lower()):
            split = SPLITS.get(word, word)
            if split in ("train", "val", "test"):
                return cast(Split, split)
    return ""


def _store(mask: Mask) -> Path:
    """Write a mask to a file that its content names; an existing file is kept."""
    content = hashlib.sha256(repr(mask.shape).encode() + np.packbits(mask).tobytes()).hexdigest()[:32]
    path = Path("data").resolve() / "annotation_masks" / f"{content}.png"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, mask)
    return path
