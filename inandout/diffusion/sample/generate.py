"""A folder that is filled with generated images, and goes on where it was interrupted."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diffusers import StableDiffusionPipeline
from tqdm import tqdm

from inandout.data.colour import without_colour
from inandout.data.images import ImageArray, read_image, write_image
from inandout.data.text import write_text
from inandout.diffusion.sample.inpaint import Canvas, find_fault
from inandout.diffusion.sample.quality_filter import QualityFilter, RejectReason
from inandout.diffusion.sample.rejection_sampling import Generator, rejection_sample
from inandout.diffusion.sample.sampler import SamplingConfig, image_seed, sample

_INDEX = "index.jsonl"


class Kept(NamedTuple):
    """An image that passed the gate."""

    number: int
    """Of the candidate, from 0; it decides prompt and seed."""
    path: Path


class PoolState(NamedTuple):
    """What a folder holds."""

    kept: list[Kept]
    rejected: dict[RejectReason, int]
    """How many candidates were kept out, by reason."""
    drawn: int
    """How many of `kept` were not there before."""


def text2img_generator(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seed: int,
    sizes: Sequence[tuple[int, int]],
    config: SamplingConfig,
    clip_skip: int,
) -> Generator:
    """Draws candidates: number i has prompt i, going round, and seed `image_seed(seed, i)`.

    `sizes` (width, height) go round from block to block.
    """

    def generator(numbers: range) -> Iterator[tuple[ImageArray, RejectReason | None]]:
        width, height = sizes[(numbers.start // config.sample_batch) % len(sizes)]
        asked = [prompts[number % len(prompts)] for number in numbers]
        seeds = [image_seed(seed, number) for number in numbers]
        for batch in sample(
            pipeline, asked, seeds, width=width, height=height, config=config, clip_skip=clip_skip
        ):  # fmt: skip
            yield from zip(batch.images, [None if finite else "non-finite" for finite in batch.finite], strict=True)

    return generator


def grey_generator(generator: Generator) -> Generator:
    """The same candidates without colour, for data that has none."""
    return lambda numbers: ((without_colour(image), fault) for image, fault in generator(numbers))


def inpaint_generator(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seed: int,
    canvas_of: Callable[[range], Canvas],
    config: SamplingConfig,
    clip_skip: int,
) -> Generator:
    """Draws candidates as `text2img_generator` does, on the canvases of their numbers."""

    def generator(numbers: range) -> Iterator[tuple[ImageArray, RejectReason | None]]:
        canvas = canvas_of(numbers)
        asked = [prompts[number % len(prompts)] for number in numbers]
        seeds = [image_seed(seed, number) for number in numbers]
        height, width = canvas.masks.shape[1:]
        batches = sample(
            pipeline, asked, seeds, width=width, height=height, config=config, clip_skip=clip_skip, canvas=canvas
        )  # fmt: skip
        made = [pair for batch in batches for pair in zip(batch.images, batch.finite, strict=True)]
        for (image, finite), before, mask in zip(made, canvas.images, canvas.masks, strict=True):
            yield image, find_fault(image, bool(finite), before, mask)

    return generator


def fill_pool(
    folder: Path,
    n: int,
    generator: Generator,
    batch_size: int,
    training: Iterable[ImageArray] | None,
    name: str = "ddpm",
) -> PoolState:
    """Write images that pass the gate as `<place>.png` until there are `n`; the same ones however often interrupted.

    What is known of them is in `index.jsonl`, a line an image, written after the image.

    Args:
        folder: exists; what an interrupted call left there is used.
        n: images wanted.
        generator: see `rejection_sample`.
        batch_size: images that are made at once.
        training: images that must not come back; None where images are drawn on them.
        name: of the progress bar.

    Raises:
        TooManyRejectedError: see `rejection_sample`; what there is stays.
    """
    index = folder / _INDEX
    kept, counts = _read_index(index, folder, n)
    quality_filter = QualityFilter(training, counts)
    found = len(kept)
    for one in kept:
        quality_filter.remember(read_image(one.path))
    candidates = rejection_sample(n, generator, quality_filter, batch_size, accepted=len(kept))
    for number, image in tqdm(candidates, name, total=n, initial=len(kept), unit="image", disable=None):
        kept.append(Kept(number, folder / f"{len(kept):06d}.png"))
        write_image(kept[-1].path, image)
        with index.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"number": number, "rejected": dict(quality_filter.counts)}) + "\n")
    return PoolState(kept, dict(quality_filter.counts), len(kept) - found)


def count_kept(folder: Path) -> int:
    """How many images a folder of `fill_pool` holds, which need not be there yet."""
    index = folder / _INDEX
    return index.read_text(encoding="utf-8").count("\n") if index.exists() else 0


def _read_index(index: Path, folder: Path, most: int) -> tuple[list[Kept], Counter[RejectReason]]:
    """The first `most` that were kept before, and how many candidates were kept out up to the last of them."""
    text = index.read_text(encoding="utf-8") if index.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:  # killed in the middle of the last line
        write_text(index, whole)
    rows = [json.loads(line) for line in whole.splitlines()[:most]]
    kept = [Kept(row["number"], folder / f"{place:06d}.png") for place, row in enumerate(rows)]
    return kept, Counter(rows[-1]["rejected"]) if rows else Counter()
