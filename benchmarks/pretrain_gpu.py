"""Pre-train the UNet and the text encoder of the embedded base on one GPU in minutes.

    PYTHONPATH=. python benchmarks/pretrain_gpu.py draw --images /tmp/surfaces --workers 10 --minutes 14 &
    PYTHONPATH=. python benchmarks/pretrain_gpu.py train --images /tmp/surfaces --minutes 8 --out base
    PYTHONPATH=. python benchmarks/pretrain_gpu.py join --trained base --out surface-diffusion

`inandout pretrain` draws a batch of surfaces for every step, which is right on a CPU, where a step takes longer than
drawing. A GPU takes a step in the time in which a core draws a few images. So here worker processes write files of
images, each with several captions as tokens, as fast as they can (`draw`), and `train` reads the files as they come
into a ring buffer on the GPU, and draws batches from it: every image is used several times, flipped, with another
caption and other noise. The networks, the captions, the loss and its weights are those of `inandout pretrain`.

The learning rate follows the clock and not the steps, so that the training ends on time. A step whose gradient is not
finite changes nothing. The averages are written every minute. `--start` trains the averages of an earlier call further.
`train` needs nothing but torch, diffusers, transformers, safetensors, numpy, scipy, Pillow, pydantic and tqdm. What
runs on a GPU gave is in `benchmarks/README.md`.
"""

import argparse
import json
import math
import os
import queue
import threading
import time
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor, nn

from inandout.data.images import write_image
from inandout.data.surfaces import KINDS
from inandout.diffusion.captions import caption_of, vocabulary
from inandout.diffusion.embedded import EMBEDDED, assemble, learned_student, new_student
from inandout.diffusion.networks import build_unet
from inandout.diffusion.pretrain_unet import DEFECT_WEIGHT, UNCONDITIONAL, Student, defect_weights, denoising_loss
from inandout.diffusion.sampling import SamplingConfig, sample
from inandout.diffusion.school import SHAPES, WHOLE, School
from inandout.diffusion.words import LENGTH, build_tokenizer
from inandout.pictures import contact_sheet

CAPTIONS = 4
"""Captions of an image; every use of the image takes one of them."""
CHUNK = 256
"""Images of 64x64 px in a file; a file of larger ones has fewer."""
TAUGHT = (*KINDS, "cracked", "pitted", *["stained"] * 2)
"""Kinds of defects, each as often as it stands here."""
CAPACITY = {WHOLE: 1_600_000}
"""(Width, height) to the images that the ring buffer holds, and `OTHER_CAPACITY` for all other sizes."""
OTHER_CAPACITY = 120_000
TEXT_SHARE, TEXT_RAMP = (0.1, 0.5), (0.15, 0.35)
"""Shares of the learning rate that the text encoder begins and ends with, and the progress between them: with the
whole rate from the first step on, its states collapse to one vector."""
WARM_UP, DECAY_FROM = 0.02, 0.5
"""Progress up to which the learning rate rises, and from which it falls along a half cosine to nothing."""
PARTS = ("unet", "text_encoder")
WIDTHS, ATTENTION_FROM = (32, 64, 128, 192), 1
"""Of the UNet: wider at the bottom than the shipped one, and with attention at a quarter of the sides, too."""
EMA_EVERY = 4
SAVE_EVERY = 60.0
"""Seconds between two exports."""


# --- drawing ---------------------------------------------------------------------------------------------------------


def draw_files(folder: Path, worker: int, seed: int, minutes: float) -> None:
    """Write files of images until the time is over; those of two workers differ."""
    os.nice(10)
    torch.set_num_threads(1)
    tokenizer = build_tokenizer(vocabulary())
    school = School(seed + worker, CHUNK, close_ups=0.0, kinds=TAUGHT)
    end = time.monotonic() + 60 * minutes
    for number in count():
        if time.monotonic() > end:
            return
        drawn, rng = school.draw(number)
        captions = [[caption_of(one.surface, rng, one.product) for _ in range(CAPTIONS)] for one in drawn]
        tokens = tokenizer(
            [caption for several in captions for caption in several], padding="max_length", truncation=True,
            max_length=LENGTH, return_tensors="np",
        ).input_ids.reshape(len(drawn), CAPTIONS, LENGTH)  # fmt: skip
        masks = np.stack([one.surface.mask for one in drawn])
        temporary = folder / f".{worker}_{number}.tmp"
        with temporary.open("wb") as file:
            np.savez(
                file, images=np.stack([one.surface.picture for one in drawn]), tokens=tokens.astype(np.int16),
                heavy=(defect_weights(masks) > 1).numpy(),
            )  # fmt: skip
        temporary.rename(folder / f"{worker:02}_{number:06}.npz")


def start_drawing(folder: Path, workers: int, first: int, seed: int, minutes: float) -> list[Any]:
    """Start worker processes; `first` is the number of the first, so that two calls draw different images."""
    folder.mkdir(parents=True, exist_ok=True)
    context = get_context("spawn")
    processes = [
        context.Process(target=draw_files, args=(folder, first + worker, seed, minutes), daemon=True)
        for worker in range(workers)
    ]
    for process in processes:
        process.start()
    return processes


# --- the ring buffer -------------------------------------------------------------------------------------------------


class Ring:
    """Images of one size on the device, the oldest replaced first."""

    def __init__(self, size: tuple[int, int], capacity: int, device: torch.device) -> None:
        width, height = size
        self.images = torch.empty((capacity, height, width, 3), dtype=torch.uint8, device=device)
        self.heavy = torch.empty((capacity, height // 2, width // 2), dtype=torch.bool, device=device)
        self.tokens = torch.empty((capacity, CAPTIONS, LENGTH), dtype=torch.int16, device=device)
        self.seen = 0

    def add(self, chunk: dict[str, Tensor]) -> None:
        """Put the images of a file into the buffer."""
        number, capacity = len(chunk["images"]), len(self.images)
        start = self.seen % capacity
        first = min(number, capacity - start)
        for name in ("images", "heavy", "tokens"):
            buffer, new = getattr(self, name), chunk[name].to(self.images.device, non_blocking=True)
            buffer[start : start + first] = new[:first]
            buffer[: number - first] = new[first:]
        self.seen += number

    def draw(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images (N, 3, H, W) in -1..1, where a defect is (N, H/2, W/2), tokens (N, LENGTH)."""
        held = min(self.seen, len(self.images))
        chosen = torch.randint(held, (number,), generator=generator, device=generator.device)
        caption = torch.randint(CAPTIONS, (number,), generator=generator, device=generator.device)
        images = self.images[chosen].permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return images, self.heavy[chosen], self.tokens[chosen, caption].long()


def read_files(folder: Path, ready: "queue.Queue[dict[str, Tensor]]", done: threading.Event) -> None:
    """Read new files as they come, in a thread."""
    known: set[str] = set()
    while not done.is_set():
        new = sorted(path for path in folder.glob("*.npz") if path.name not in known)
        for path in new:
            known.add(path.name)
            with np.load(path) as file:
                chunk = {name: torch.from_numpy(file[name]) for name in ("images", "heavy", "tokens")}
            while not done.is_set():
                try:
                    ready.put(chunk, timeout=1)
                    break
                except queue.Full:
                    continue
        if not new:
            time.sleep(0.2)


# --- training --------------------------------------------------------------------------------------------------------


@dataclass
class Trainer:
    """Everything that a step needs."""

    student: Student
    device: torch.device
    batch_size: int
    lr: float
    autocast: bool
    generator: torch.Generator
    rings: dict[tuple[int, int], Ring] = field(default_factory=dict)
    losses: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        student = self.student
        self.parameters = [*student.unet.parameters(), *student.text_encoder.parameters()]
        self.averages = [parameter.detach().clone() for parameter in self.parameters]
        groups = [{"params": list(getattr(student, part).parameters())} for part in PARTS]
        self.optimiser = torch.optim.AdamW(
            groups, lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=self.device.type == "cuda"
        )
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=1.0, growth_interval=2**30)
        self.rng = np.random.default_rng(0)
        empty = student.tokenizer([""], padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids[0]
        self.empty = empty.to(self.device)

    def add(self, chunk: dict[str, Tensor]) -> None:
        """Put the images of a file into the ring buffer of their size."""
        height, width = chunk["images"].shape[1:3]
        size = (width, height)
        if size not in self.rings:
            capacity = CAPACITY.get(size, OTHER_CAPACITY) if self.device.type == "cuda" else 4096
            self.rings[size] = Ring(size, capacity, self.device)
        self.rings[size].add(chunk)

    def step(self, number: int, progress: float) -> None:
        """One step of the optimiser, and now and then of the averages."""
        size = self._size()
        loss = self._loss(size)
        set_rates(self.optimiser, self.lr, progress)
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.scaler.step(self.optimiser)  # left out if a gradient is not finite
        self.scaler.update(1.0)
        self.losses.append(loss.detach())
        if number % EMA_EVERY == 0:
            decay = min(0.999, (1 + number) / (10 + number)) ** EMA_EVERY
            with torch.no_grad():
                torch._foreach_lerp_(self.averages, [one.detach() for one in self.parameters], 1 - decay)

    def _size(self) -> tuple[int, int]:
        sizes = [size for size in SHAPES if size in self.rings]
        shares = np.array([SHAPES[size] for size in sizes])
        return sizes[self.rng.choice(len(sizes), p=shares / shares.sum())]

    def _loss(self, size: tuple[int, int]) -> Tensor:
        student, generator = self.student, self.generator
        images, heavy, tokens = self.rings[size].draw(self.batch_size * 4096 // (size[0] * size[1]), generator)
        images, heavy = turned(images, heavy, self.rng.integers(8))
        dropped = torch.rand(len(tokens), generator=generator, device=self.device) < UNCONDITIONAL
        tokens = torch.where(dropped[:, None], self.empty, tokens)
        with torch.no_grad():
            latents = student.vae.encode(images).latents * student.vae.config.scaling_factor
            weights = 1 + (DEFECT_WEIGHT - 1) * heavy.float()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            states = student.text_encoder(tokens)[0]
            loss, _ = denoising_loss(student.unet, student.scheduler, latents, weights, states, generator)
        return loss


def turned(images: Tensor, heavy: Tensor, way: int) -> tuple[Tensor, Tensor]:
    """One of the eight ways to flip and transpose a batch: way 0 changes nothing."""
    for bit, flip in enumerate((lambda t: t.flip(-1), lambda t: t.flip(-2), lambda t: t.transpose(-1, -2))):
        if way >> bit & 1:
            images, heavy = flip(images), flip(heavy)
    return images.contiguous(memory_format=torch.channels_last), heavy


def set_rates(optimiser: torch.optim.Optimizer, lr: float, progress: float) -> None:
    """The learning rates of UNet and text encoder at a progress of 0..1."""
    rate = lr * min(progress / WARM_UP, 1.0)
    if progress > DECAY_FROM:
        rate *= 0.5 * (1 + math.cos(math.pi * (progress - DECAY_FROM) / (1 - DECAY_FROM)))
    (low, high), (begin, end) = TEXT_SHARE, TEXT_RAMP
    share = low + (high - low) * min(max((progress - begin) / (end - begin), 0.0), 1.0)
    for group, part in zip(optimiser.param_groups, (1.0, share), strict=True):
        group["lr"] = rate * part


def train(options: argparse.Namespace, trainer: Trainer) -> dict[str, Any]:
    """Train until the time is over; the record of the training."""
    ready: queue.Queue[dict[str, Tensor]] = queue.Queue(maxsize=64)
    done = threading.Event()
    threading.Thread(target=read_files, args=(options.images, ready, done), daemon=True).start()
    while sum(ring.seen for ring in trainer.rings.values()) < options.begin_with:
        trainer.add(ready.get(timeout=600))
    begin, record = time.monotonic(), []
    number, progress, saved = 0, 0.0, begin
    while progress < 1:
        for _ in range(2):
            if not ready.empty():
                trainer.add(ready.get_nowait())
        number += 1
        trainer.step(number, progress)
        progress = (time.monotonic() - begin) / (60 * options.minutes)
        if number in (1, 20, 100) or number % 250 == 0:
            record.append(report(trainer, number, progress, time.monotonic() - begin))
        if time.monotonic() - saved > SAVE_EVERY:
            saved = time.monotonic()
            save_averages(trainer, options.out)
    done.set()
    return {"steps": number, "history": record, "batch_size": options.batch_size, "lr": options.lr}


def report(trainer: Trainer, number: int, progress: float, seconds: float) -> dict[str, float]:
    """Print and return how far the training is; waits for the device."""
    loss = float(torch.stack(trainer.losses).nanmean())
    trainer.losses.clear()
    images = sum(ring.seen for ring in trainer.rings.values())
    print(f"step {number}, {seconds:.0f} s, loss {loss:.4f}, {images} images drawn, {progress:.0%}", flush=True)
    return {"step": number, "seconds": seconds, "loss": loss, "images": images}


def begin(options: argparse.Namespace, device: torch.device) -> Trainer:
    """A new UNet and text encoder around the VAE of the embedded base, or those of `--start`."""
    student = learned_student(options.start) if options.start else empty_student(options.seed)
    for part in (student.unet, student.text_encoder, student.vae):
        part.to(device)
    student.unet.train()
    student.text_encoder.train()
    generator = torch.Generator(device).manual_seed(options.seed)
    return Trainer(student, device, options.batch_size, options.lr, device.type == "cuda", generator)


def empty_student(seed: int) -> Student:
    """An untrained UNet and text encoder around the VAE of the embedded base."""
    student = new_student(learned_student(EMBEDDED).vae, seed)
    return replace(student, unet=build_unet(seed + 1, WIDTHS, attention_from=ATTENTION_FROM))


def save_averages(trainer: Trainer, out: Path) -> StableDiffusionPipeline:
    """Write the averages in half precision, in files of less than 15 MB; the pipeline of them, in single precision."""
    student = trainer.student
    names = [f"{part}.{name}" for part in PARTS for name, _ in getattr(student, part).named_parameters()]
    kept = {name: value for name, value in student.parts().state_dict().items() if name not in names}
    student.averages.values = dict(zip(names, trainer.averages, strict=True)) | kept
    pipeline = assemble(student)
    for part in PARTS:
        deepcopy(getattr(pipeline, part)).half().save_pretrained(out / part, max_shard_size="14MB")
    return pipeline


def draw_sheet(pipeline: StableDiffusionPipeline, out: Path) -> None:
    """What the base draws, a row a kind of defect."""
    prompts = [f"background {kind}".strip() for kind in ("", *KINDS) for _ in range(8)]
    settings = SamplingConfig().resolved("embedded")
    made = sample(pipeline, prompts, [i % 8 for i in range(len(prompts))], width=64, height=64, config=settings)
    write_image(out, contact_sheet([image for batch in made for image in batch.pictures], prompts, 8))


def join(folder: Path, out: Path) -> None:
    """Write the base of `train` as one folder in diffusers' format, its weights in half precision, one file a part."""
    student = empty_student(0)
    student.averages.values.clear()
    for name in PARTS:
        state: dict[str, Tensor] = {}
        for path in sorted((folder / name).glob("*.safetensors")):
            state |= load_file(path)
        student.averages.values |= {f"{name}.{key}": value.float() for key, value in state.items()}
    pipeline = assemble(student)
    pipeline.unet.half()
    pipeline.text_encoder.half()
    pipeline.save_pretrained(out)


def main() -> None:
    """Draw, train or join."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("draw", "train", "join"))
    parser.add_argument("--images", type=Path, default=Path("surfaces"), help="folder of the drawn images")
    parser.add_argument("--out", type=Path, default=Path("base"), help="folder of the base")
    parser.add_argument("--start", type=Path, help="folder of a joined base, to be trained further")
    parser.add_argument("--trained", type=Path, help="join: folder that `train` wrote")
    parser.add_argument("--minutes", type=float, default=8.0, help="of drawing, or of training after the start")
    parser.add_argument("--workers", type=int, default=14, help="processes that draw; 0 = train on what there is")
    parser.add_argument("--first-worker", type=int, default=0, help="number of the first, unlike those of other calls")
    parser.add_argument("--begin-with", type=int, default=20_000, help="images to wait for before the first step")
    parser.add_argument("--batch-size", type=int, default=1024, help="images of 64x64 a step")
    parser.add_argument("--lr", type=float, default=0.001, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=11, help="of weights, images and noise")
    options = parser.parse_args()
    if options.action == "join":
        return join(options.trained, options.out)
    workers = start_drawing(options.images, options.workers, options.first_worker, options.seed, options.minutes + 1)
    if options.action == "draw":
        for worker in workers:
            worker.join()
        return None
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = begin(options, device)
    record = train(options, trainer)
    for worker in workers:
        worker.terminate()
    draw_sheet(save_averages(trainer, options.out), options.out / "sheet.png")
    (options.out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
