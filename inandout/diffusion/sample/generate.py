"""Fill a folder with generated images; an interrupted folder is continued."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from inandout.data.colour import without_colour
from inandout.data.images import ImageArray, read_image, write_image
from inandout.data.text import write_text
from inandout.diffusion.pipeline import Pipeline
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.drawn_masks import draw_masks
from inandout.diffusion.sample.guidance import Composition
from inandout.diffusion.sample.inpaint import Canvas, find_fault
from inandout.diffusion.sample.quality_filter import QualityFilter, RejectReason
from inandout.diffusion.sample.rejection_sampling import Generator, rejection_sample
from inandout.diffusion.sample.sampler import image_seed, sample
from inandout.diffusion.sample.window import Window, enlarge, find_window, paste

_INDEX = "index.jsonl"


class Kept(NamedTuple):
    """An image that passed the quality filter."""

    number: int
    """Number of the candidate, from 0; it determines prompt and seed."""
    path: Path


class PoolState(NamedTuple):
    """Contents of a folder."""

    kept: list[Kept]
    rejected: dict[RejectReason, int]
    """Number of rejected candidates by reason."""
    drawn: int
    """Number of images in `kept` that this call added."""


def text2img_generator(
    pipeline: Pipeline,
    prompts: Sequence[str],
    seed: int,
    sizes: Sequence[tuple[int, int]],
    config: SamplingConfig,
    clip_skip: int,
    composition: Composition | None = None,
) -> Generator:
    """Return a generator of whole images: candidate i gets prompt i (cyclically) and seed `image_seed(seed, i)`.

    `sizes` (width, height) alternate from block to block.
    """

    def generator(numbers: range) -> Iterator[tuple[ImageArray, RejectReason | None]]:
        width, height = sizes[(numbers.start // config.sample_batch) % len(sizes)]
        chosen = [prompts[number % len(prompts)] for number in numbers]
        seeds = [image_seed(seed, number) for number in numbers]
        for batch in sample(
            pipeline, chosen, seeds, width=width, height=height, config=config, clip_skip=clip_skip,
            composition=composition,
        ):  # fmt: skip
            yield from zip(batch.images, [None if finite else "non-finite" for finite in batch.finite], strict=True)

    return generator


def grey_generator(generator: Generator) -> Generator:
    """Return a generator of the same candidates without colour, for data without colour."""
    return lambda numbers: ((without_colour(image), fault) for image, fault in generator(numbers))


def inpaint_generator(
    pipeline: Pipeline,
    prompts: Sequence[str],
    seed: int,
    canvas_of: Callable[[range], Canvas],
    config: SamplingConfig,
    clip_skip: int,
    composition: Composition | None = None,
    windows_of: Callable[[range], list[Window]] | None = None,
    window_side: int = 0,
) -> Generator:
    """Return a generator like `text2img_generator` that inpaints the canvases of the candidates' numbers.

    With `windows_of`, only these windows are drawn, as squares of `window_side` px.
    """

    def generator(numbers: range) -> Iterator[tuple[ImageArray, RejectReason | None]]:
        canvas = canvas_of(numbers)
        height, width = canvas.masks.shape[1:]
        windows, margin, size = None, config.mask_crop, (width, height)
        if windows_of:
            windows, size = windows_of(numbers), (window_side, window_side)
        elif margin is not None:
            windows = [find_window(mask, margin) for mask in canvas.masks]
        chosen = [prompts[number % len(prompts)] for number in numbers]
        seeds = [image_seed(seed, number) for number in numbers]
        batches = sample(
            pipeline, chosen, seeds, width=size[0], height=size[1], config=config, clip_skip=clip_skip,
            canvas=enlarge(canvas, windows, size) if windows else canvas, composition=composition,
        )  # fmt: skip
        sampled = list(batches)
        images, finite = (np.concatenate(parts) for parts in zip(*sampled, strict=True))
        images = paste(canvas, windows, images) if windows else images
        for image, usable, before, mask in zip(images, finite, canvas.images, canvas.masks, strict=True):
            yield image, find_fault(image, bool(usable), before, mask)

    return generator


def mask_generator(
    pipeline: Pipeline,
    prompts: Sequence[str],
    seed: int,
    size: tuple[int, int],
    config: SamplingConfig,
    clip_skip: int,
    composition: Composition,
) -> Callable[[range], npt.NDArray[np.bool_]]:
    """Return a function that draws the masks (N, H, W) of candidates, from the noise that also draws the candidates."""

    def masks(numbers: range) -> npt.NDArray[np.bool_]:
        chosen = [prompts[number % len(prompts)] for number in numbers]
        seeds = [image_seed(seed, number) for number in numbers]
        width, height = size
        return draw_masks(
            pipeline, composition, chosen, seeds, width=width, height=height, config=config, clip_skip=clip_skip
        )

    return masks


def fill_pool(
    folder: Path,
    n: int,
    generator: Generator,
    batch_size: int,
    training: Iterable[ImageArray] | None,
    name: str = "ddpm",
) -> PoolState:
    """Write images that pass the quality filter as `<place>.png` until there are `n`; interruptions do not change them.

    `index.jsonl` has a line per image with its metadata, written after the image.

    Args:
        folder: an existing folder, which no other process uses; images of an interrupted call are kept.
        n: number of wanted images.
        generator: see `rejection_sample`.
        batch_size: candidates per block.
        training: images that must not be copied; None if images are inpainted on them.
        name: label of the progress bar.

    Raises:
        TooManyRejectedError: see `rejection_sample`; images in the folder are kept.
    """
    for leftover in folder.glob(".*.tmp"):  # of a killed process
        leftover.unlink()
    index = folder / _INDEX
    kept, counts = _read_index(index, folder, n)
    quality_filter = QualityFilter(training, counts)
    existing = len(kept)
    for image in kept:
        quality_filter.remember(read_image(image.path))
    candidates = rejection_sample(n, generator, quality_filter, batch_size, accepted=len(kept))
    for number, pixels in tqdm(candidates, name, total=n, initial=len(kept), unit="image", disable=None):
        kept.append(Kept(number, folder / f"{len(kept):06d}.png"))
        write_image(kept[-1].path, pixels)
        with index.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"number": number, "rejected": dict(quality_filter.counts)}) + "\n")
    return PoolState(kept, dict(quality_filter.counts), len(kept) - existing)


def count_kept(folder: Path) -> int:
    """Return the number of images in a folder of `fill_pool`, 0 if the folder does not exist."""
    index = folder / _INDEX
    return index.read_text(encoding="utf-8").count("\n") if index.exists() else 0


def _read_index(index: Path, folder: Path, limit: int) -> tuple[list[Kept], Counter[RejectReason]]:
    """Return the first `limit` kept images, and the number of rejected candidates up to the last of them."""
    text = index.read_text(encoding="utf-8") if index.exists() else ""
    complete = text[: text.rfind("\n") + 1]
    if complete != text:  # interrupted while writing the last line
        write_text(index, complete)
    rows = [json.loads(line) for line in complete.splitlines()[:limit]]
    kept = [Kept(row["number"], folder / f"{place:06d}.png") for place, row in enumerate(rows)]
    return kept, Counter(rows[-1]["rejected"]) if rows else Counter()
