"""A folder that is filled with generated pictures, and goes on where it was interrupted."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diffusers import StableDiffusionPipeline
from tqdm import tqdm

from inandout.data.colour import without_colour
from inandout.data.images import Picture, read_image, write_image
from inandout.data.text import write_text
from inandout.diffusion.sample.inpaint import Canvas, fault_of
from inandout.diffusion.sample.quality_filter import Gate, Reason
from inandout.diffusion.sample.rejection_sampling import Make, fill
from inandout.diffusion.sample.sampler import SamplingConfig, picture_seed, sample

_INDEX = "index.jsonl"


class Kept(NamedTuple):
    """A picture that passed the gate."""

    number: int
    """Of the candidate, from 0; it decides prompt and seed."""
    path: Path


class Filled(NamedTuple):
    """What a folder holds."""

    kept: list[Kept]
    rejected: dict[Reason, int]
    """How many candidates were kept out, by reason."""
    drawn: int
    """How many of `kept` were not there before."""


def sampler(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seed: int,
    sizes: Sequence[tuple[int, int]],
    config: SamplingConfig,
    clip_skip: int,
) -> Make:
    """Draws candidates: number i has prompt i, going round, and seed `picture_seed(seed, i)`.

    `sizes` (width, height) go round from block to block.
    """

    def make(numbers: range) -> Iterator[tuple[Picture, Reason | None]]:
        width, height = sizes[(numbers.start // config.sample_batch) % len(sizes)]
        asked = [prompts[number % len(prompts)] for number in numbers]
        seeds = [picture_seed(seed, number) for number in numbers]
        for batch in sample(
            pipeline, asked, seeds, width=width, height=height, config=config, clip_skip=clip_skip
        ):  # fmt: skip
            yield from zip(batch.pictures, [None if finite else "non-finite" for finite in batch.finite], strict=True)

    return make


def grey_maker(make: Make) -> Make:
    """The same candidates without colour, for data that has none."""
    return lambda numbers: ((without_colour(picture), fault) for picture, fault in make(numbers))


def inpainter(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seed: int,
    canvas_of: Callable[[range], Canvas],
    config: SamplingConfig,
    clip_skip: int,
) -> Make:
    """Draws candidates as `sampler` does, on the canvases of their numbers."""

    def make(numbers: range) -> Iterator[tuple[Picture, Reason | None]]:
        canvas = canvas_of(numbers)
        asked = [prompts[number % len(prompts)] for number in numbers]
        seeds = [picture_seed(seed, number) for number in numbers]
        height, width = canvas.masks.shape[1:]
        batches = sample(
            pipeline, asked, seeds, width=width, height=height, config=config, clip_skip=clip_skip, canvas=canvas
        )  # fmt: skip
        made = [pair for batch in batches for pair in zip(batch.pictures, batch.finite, strict=True)]
        for (picture, finite), before, mask in zip(made, canvas.pictures, canvas.masks, strict=True):
            yield picture, fault_of(picture, bool(finite), before, mask)

    return make


def fill_folder(
    folder: Path, n: int, make: Make, batch_size: int, training: Iterable[Picture] | None, name: str = "ddpm"
) -> Filled:
    """Write pictures that pass the gate as `<place>.png` until there are `n`; the same ones however often interrupted.

    What is known of them is in `index.jsonl`, a line a picture, written after the picture.

    Args:
        folder: exists; what an interrupted call left there is used.
        n: pictures wanted.
        make: see `fill`.
        batch_size: pictures that are made at once.
        training: pictures that must not come back; None where pictures are drawn on them.
        name: of the progress bar.

    Raises:
        TooManyRejectedError: see `fill`; what there is stays.
    """
    index = folder / _INDEX
    kept, counts = _read_index(index, folder, n)
    gate = Gate(training, counts)
    found = len(kept)
    for one in kept:
        gate.remember(read_image(one.path))
    candidates = fill(n, make, gate, batch_size, accepted=len(kept))
    for number, picture in tqdm(candidates, name, total=n, initial=len(kept), unit="picture", disable=None):
        kept.append(Kept(number, folder / f"{len(kept):06d}.png"))
        write_image(kept[-1].path, picture)
        with index.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"number": number, "rejected": dict(gate.counts)}) + "\n")
    return Filled(kept, dict(gate.counts), len(kept) - found)


def count_kept(folder: Path) -> int:
    """How many pictures a folder of `fill_folder` holds, which need not be there yet."""
    index = folder / _INDEX
    return index.read_text(encoding="utf-8").count("\n") if index.exists() else 0


def _read_index(index: Path, folder: Path, most: int) -> tuple[list[Kept], Counter[Reason]]:
    """The first `most` that were kept before, and how many candidates were kept out up to the last of them."""
    text = index.read_text(encoding="utf-8") if index.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:  # killed in the middle of the last line
        write_text(index, whole)
    rows = [json.loads(line) for line in whole.splitlines()[:most]]
    kept = [Kept(row["number"], folder / f"{place:06d}.png") for place, row in enumerate(rows)]
    return kept, Counter(rows[-1]["rejected"]) if rows else Counter()
