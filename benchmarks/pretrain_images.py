"""Images for `pretrain_gpu.py`: worker processes that draw files of them, and a ring buffer on the GPU."""

import os
import queue
import threading
import time
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inandout.data.surfaces import KINDS
from inandout.diffusion.pretrain.captions import caption_of, vocabulary
from inandout.diffusion.pretrain.stream import SurfaceStream
from inandout.diffusion.pretrain.tokenizer import LENGTH, build_tokenizer
from inandout.diffusion.pretrain.train_unet import pixel_weights

CAPTIONS = 4
"""Captions per image; every use of an image samples one of them."""
CHUNK = 256
"""Images of 64x64 px per file; files of larger images contain fewer."""
TAUGHT = (*KINDS, "cracked", "pitted", *["stained"] * 2)
"""Kinds of defects, sampled uniformly from this list with its repetitions."""


def draw_files(folder: Path, worker: int, seed: int, minutes: float) -> None:
    """Write files of images until the time is over; workers draw different images."""
    os.nice(10)
    torch.set_num_threads(1)
    tokenizer = build_tokenizer(vocabulary())
    stream = SurfaceStream(seed + worker, CHUNK, close_ups=0.0, kinds=TAUGHT)
    end = time.monotonic() + 60 * minutes
    for number in count():
        if time.monotonic() > end:
            return
        drawn, rng = stream.draw(number)
        captions = [[caption_of(each.surface, rng, each.product) for _ in range(CAPTIONS)] for each in drawn]
        tokens = tokenizer(
            [caption for of_image in captions for caption in of_image], padding="max_length", truncation=True,
            max_length=LENGTH, return_tensors="np",
        ).input_ids.reshape(len(drawn), CAPTIONS, LENGTH)  # fmt: skip
        masks = np.stack([each.surface.mask for each in drawn])
        temporary = folder / f".{worker}_{number}.tmp"
        with temporary.open("wb") as file:
            np.savez(
                file, images=np.stack([each.surface.image for each in drawn]), tokens=tokens.astype(np.int16),
                defects=(pixel_weights(masks) > 1).numpy(),
            )  # fmt: skip
        temporary.rename(folder / f"{worker:02}_{number:06}.npz")


def start_drawing(folder: Path, workers: int, first: int, seed: int, minutes: float) -> list[Any]:
    """Start worker processes, numbered from `first`; calls with other numbers draw different images."""
    folder.mkdir(parents=True, exist_ok=True)
    context = get_context("spawn")
    processes = [
        context.Process(target=draw_files, args=(folder, first + worker, seed, minutes), daemon=True)
        for worker in range(workers)
    ]
    for process in processes:
        process.start()
    return processes


class Ring:
    """Ring buffer of images of one size on the device."""

    def __init__(self, size: tuple[int, int], capacity: int, device: torch.device) -> None:
        width, height = size
        self.images = torch.empty((capacity, height, width, 3), dtype=torch.uint8, device=device)
        self.defects = torch.empty((capacity, height // 2, width // 2), dtype=torch.bool, device=device)
        self.tokens = torch.empty((capacity, CAPTIONS, LENGTH), dtype=torch.int16, device=device)
        self.seen = 0

    def add(self, chunk: dict[str, Tensor]) -> None:
        """Add the images of a file; replace the oldest if the buffer is full."""
        number, capacity = len(chunk["images"]), len(self.images)
        start = self.seen % capacity
        first = min(number, capacity - start)
        for name in ("images", "defects", "tokens"):
            buffer, new = getattr(self, name), chunk[name].to(self.images.device)
            buffer[start : start + first] = new[:first]
            buffer[: number - first] = new[first:]
        self.seen += number

    def draw(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Sample images (N, 3, H, W) in -1..1, boolean defect masks (N, H/2, W/2), and tokens (N, LENGTH)."""
        size = min(self.seen, len(self.images))
        chosen = torch.randint(size, (number,), generator=generator, device=generator.device)
        caption = torch.randint(CAPTIONS, (number,), generator=generator, device=generator.device)
        images = self.images[chosen].permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return images, self.defects[chosen], self.tokens[chosen, caption].long()


def read_files(folder: Path, ready: "queue.Queue[dict[str, Tensor]]", done: threading.Event) -> None:
    """Read new files into `ready` until `done` is set; runs in a thread."""
    known: set[str] = set()
    while not done.is_set():
        new = sorted(path for path in folder.glob("*.npz") if path.name not in known)
        for path in new:
            known.add(path.name)
            with np.load(path) as file:
                chunk = {name: torch.from_numpy(file[name]) for name in ("images", "defects", "tokens")}
            while not done.is_set():
                try:
                    ready.put(chunk, timeout=1)
                    break
                except queue.Full:
                    continue
        if not new:
            time.sleep(0.2)
