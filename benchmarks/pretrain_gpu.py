"""Pre-train the UNet and the text encoder of the embedded base on one GPU in minutes.

    PYTHONPATH=. python benchmarks/pretrain_gpu.py draw --images /tmp/surfaces --workers 10 --minutes 14 &
    PYTHONPATH=. python benchmarks/pretrain_gpu.py train --images /tmp/surfaces --minutes 8 --out base
    PYTHONPATH=. python benchmarks/pretrain_gpu.py join --trained base --out surface-diffusion

`inandout pretrain` draws a batch of surfaces for every step, which suits a CPU, where a step takes longer than drawing.
On a GPU, a step takes as long as a core needs to draw a few images. Therefore worker processes (`draw`) write files of
images, each with several tokenised captions, as fast as they can. `train` reads new files into a ring buffer on the GPU
and samples batches from it: every image is used several times, with random flips, captions and noise. Networks,
captions, loss and loss weights are the same as in `inandout pretrain`.

The learning rate is a function of the elapsed time, so that the training ends on time. Steps with a non-finite gradient
are skipped. The EMA weights are saved every minute; `--start` continues from EMA weights of an earlier call. `train`
needs torch, diffusers, transformers, safetensors, numpy, scipy, Pillow, pydantic and tqdm only. `benchmarks/README.md`
lists results on a GPU.
"""

import argparse
import json
import math
import queue
import threading
import time
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.pretrain_images import Ring, read_files, start_drawing
from inandout.data.images import write_image
from inandout.data.surfaces import KINDS
from inandout.diffusion.base.identity import EMBEDDED
from inandout.diffusion.pretrain.assemble import assemble, load_train_state, new_train_state
from inandout.diffusion.pretrain.stream import SHAPES, WHOLE
from inandout.diffusion.pretrain.tokenizer import LENGTH
from inandout.diffusion.pretrain.train_unet import (
    DEFECT_WEIGHT,
    UNCONDITIONAL,
    TrainState,
    denoising_loss,
)
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.sampler import sample
from inandout.reporting.figures import contact_sheet

CAPACITY = {WHOLE: 1_600_000}
"""(Width, height) to capacity of the ring buffer in images; other sizes have `OTHER_CAPACITY`."""
OTHER_CAPACITY = 120_000
TEXT_SHARE, TEXT_RAMP = (0.1, 0.5), (0.15, 0.35)
"""First and last share of the learning rate for the text encoder, and the progress where it rises from one to the
other. With the full rate from the first step, the states of the text encoder collapse to one vector."""
WARM_UP, DECAY_FROM = 0.02, 0.5
"""Progress where the linear warm-up of the learning rate ends, and where its cosine decay to 0 starts."""
PARTS = ("unet", "text_encoder")
EMA_EVERY = 4
SAVE_EVERY = 60.0
"""Seconds between two saves."""


class Recorded(NamedTuple):
    """A training step of one image size as a CUDA graph."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    """Read by the graph: images, defects and tokens of a batch."""
    loss: Tensor
    """Written by the graph."""


@dataclass
class Trainer:
    """State of the training.

    On a GPU, the first step of each image size is recorded as a CUDA graph and replayed afterwards, because launching
    the kernels of a step from Python takes many times as long as computing them.
    """

    train_state: TrainState
    device: torch.device
    batch_size: int
    lr: float
    rings: dict[tuple[int, int], Ring] = field(default_factory=dict)
    recorded: dict[tuple[int, int], Recorded] = field(default_factory=dict)
    losses: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        train_state, on_gpu = self.train_state, self.device.type == "cuda"
        self.parameters = [*train_state.unet.parameters(), *train_state.text_encoder.parameters()]
        self.ema = [parameter.detach().clone() for parameter in self.parameters]
        groups = [
            {"params": list(getattr(train_state, part).parameters()), "lr": torch.tensor(self.lr, device=self.device)}
            for part in PARTS
        ]
        self.optimiser = torch.optim.AdamW(
            groups, betas=(0.9, 0.99), weight_decay=0.01, fused=True, capturable=on_gpu
        )  # fmt: skip
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=1.0, growth_interval=2**30)
        self.rng = np.random.default_rng(0)
        self.generator = torch.cuda.default_generators[0] if on_gpu else torch.default_generator
        empty = train_state.tokenizer([""], padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids[0]
        self.empty = empty.to(self.device)

    def add(self, chunk: dict[str, Tensor]) -> None:
        """Add the images of a file to the ring buffer of their size."""
        height, width = chunk["images"].shape[1:3]
        size = (width, height)
        if size not in self.rings:
            capacity = CAPACITY.get(size, OTHER_CAPACITY) if self.device.type == "cuda" else 4096
            self.rings[size] = Ring(size, capacity, self.device)
        self.rings[size].add(chunk)

    def step(self, number: int, progress: float) -> None:
        """Take one optimiser step; update the EMA weights every `EMA_EVERY` steps."""
        size = self._size()
        batch = self._batch(size)
        set_rates(self.optimiser, self.lr, progress)
        self.losses.append(self._replay(size, batch) if self.device.type == "cuda" else self._update(batch))
        if number % EMA_EVERY == 0:
            decay = min(0.999, (1 + number) / (10 + number)) ** EMA_EVERY
            with torch.no_grad():
                torch._foreach_lerp_(self.ema, [parameter.detach() for parameter in self.parameters], 1 - decay)

    def _size(self) -> tuple[int, int]:
        sizes = [size for size in SHAPES if size in self.rings]
        shares = np.array([SHAPES[size] for size in sizes])
        return sizes[self.rng.choice(len(sizes), p=shares / shares.sum())]

    def _batch(self, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Sample images (N, 3, H, W) in -1..1, defects (N, H/2, W/2), and tokens (N, LENGTH), some of them empty."""
        images, defects, tokens = self.rings[size].draw(self.batch_size * 4096 // (size[0] * size[1]), self.generator)
        symmetry = int(self.rng.integers(8 if size[0] == size[1] else 4))
        images, defects = flip_and_transpose(images, defects, symmetry)
        dropped = torch.rand(len(tokens), device=self.device) < UNCONDITIONAL
        return images, defects, torch.where(dropped[:, None], self.empty, tokens)

    def _replay(self, size: tuple[int, int], batch: tuple[Tensor, ...]) -> Tensor:
        """Take a step by the CUDA graph of this size, after recording it if it is the first."""
        if size not in self.recorded:
            self.recorded[size] = self._record(batch)
        graph, inputs, loss = self.recorded[size]
        for static, new in zip(inputs, batch, strict=True):
            static.copy_(new)
        graph.replay()
        return loss.clone()

    def _record(self, batch: tuple[Tensor, ...]) -> Recorded:
        """Record a step after three ordinary ones, which CUDA graphs need before a recording."""
        inputs = tuple(tensor.clone() for tensor in batch)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._update(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._update(inputs)
        return Recorded(graph, inputs, loss)

    def _update(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Update the weights by one batch, unless a gradient is not finite; return the loss."""
        loss = self._loss(*batch)
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.scaler.step(self.optimiser)  # skipped if a gradient is not finite
        self.scaler.update(1.0)
        return loss.detach()

    def _loss(self, images: Tensor, defects: Tensor, tokens: Tensor) -> Tensor:
        train_state = self.train_state
        with torch.no_grad():
            latents = train_state.vae.encode(images).latents * train_state.vae.config.scaling_factor
            weights = 1 + (DEFECT_WEIGHT - 1) * defects.float()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            states = train_state.text_encoder(tokens)[0]
            loss, _ = denoising_loss(train_state.unet, train_state.scheduler, latents, weights, states, self.generator)
        return loss


def flip_and_transpose(images: Tensor, defects: Tensor, symmetry: int) -> tuple[Tensor, Tensor]:
    """Apply one of the eight symmetries of a square to a batch; 0 is the identity."""
    if symmetry & 1:
        images, defects = images.flip(-1), defects.flip(-1)
    if symmetry & 2:
        images, defects = images.flip(-2), defects.flip(-2)
    if symmetry & 4:
        images, defects = images.transpose(-1, -2), defects.transpose(-1, -2)
    return images.contiguous(memory_format=torch.channels_last), defects


def set_rates(optimiser: torch.optim.Optimizer, lr: float, progress: float) -> None:
    """Set the learning rates of UNet and text encoder at a progress of 0..1."""
    rate = lr * min(progress / WARM_UP, 1.0)
    if progress > DECAY_FROM:
        rate *= 0.5 * (1 + math.cos(math.pi * (progress - DECAY_FROM) / (1 - DECAY_FROM)))
    (low, high), (start, end) = TEXT_SHARE, TEXT_RAMP
    text_share = low + (high - low) * min(max((progress - start) / (end - start), 0.0), 1.0)
    for group, share in zip(optimiser.param_groups, (1.0, text_share), strict=True):
        group["lr"].fill_(rate * share)


def train(options: argparse.Namespace, trainer: Trainer) -> dict[str, Any]:
    """Train until the time is over; return the log of the training."""
    ready: queue.Queue[dict[str, Tensor]] = queue.Queue(maxsize=64)
    done = threading.Event()
    threading.Thread(target=read_files, args=(options.images, ready, done), daemon=True).start()
    while sum(ring.seen for ring in trainer.rings.values()) < options.begin_with:
        trainer.add(ready.get(timeout=600))
    started, history = time.monotonic(), []
    number, progress, saved = 0, 0.0, started
    while progress < 1:
        for _ in range(2):
            if not ready.empty():
                trainer.add(ready.get_nowait())
        number += 1
        trainer.step(number, progress)
        progress = (time.monotonic() - started) / (60 * options.minutes)
        if number in (1, 20, 100) or number % 250 == 0:
            history.append(report(trainer, number, progress, time.monotonic() - started))
        if time.monotonic() - saved > SAVE_EVERY:
            saved = time.monotonic()
            save_ema(trainer, options.out)
    done.set()
    return {"steps": number, "history": history, "batch_size": options.batch_size, "lr": options.lr}


def report(trainer: Trainer, number: int, progress: float, seconds: float) -> dict[str, float]:
    """Print and return the progress of the training; synchronises with the device."""
    loss = float(torch.stack(trainer.losses).nanmean())
    trainer.losses.clear()
    images = sum(ring.seen for ring in trainer.rings.values())
    print(f"step {number}, {seconds:.0f} s, loss {loss:.4f}, {images} images drawn, {progress:.0%}", flush=True)
    return {"step": number, "seconds": seconds, "loss": loss, "images": images}


def build_trainer(options: argparse.Namespace, device: torch.device) -> Trainer:
    """Return a trainer of a new UNet and text encoder with the VAE of the embedded base, or of the base `--start`."""
    train_state = load_train_state(options.start) if options.start else untrained_state(options.seed)
    for part in (train_state.unet, train_state.text_encoder, train_state.vae):
        part.to(device)
    train_state.unet.train()
    train_state.text_encoder.train()
    torch.manual_seed(options.seed)
    return Trainer(train_state, device, options.batch_size, options.lr)


def untrained_state(seed: int) -> TrainState:
    """Return an untrained UNet and text encoder with the VAE of the embedded base."""
    return new_train_state(load_train_state(EMBEDDED).vae, seed)


def save_ema(trainer: Trainer, out: Path) -> StableDiffusionPipeline:
    """Save the EMA weights in half precision, in files of less than 15 MB; return their pipeline in fp32."""
    train_state = trainer.train_state
    names = [f"{part}.{name}" for part in PARTS for name, _ in getattr(train_state, part).named_parameters()]
    others = {name: value for name, value in train_state.parts().state_dict().items() if name not in names}
    train_state.ema.values = dict(zip(names, trainer.ema, strict=True)) | others
    pipeline = assemble(train_state)
    for part in PARTS:
        deepcopy(getattr(pipeline, part)).half().save_pretrained(out / part, max_shard_size="14MB")
    return pipeline


def draw_sheet(pipeline: StableDiffusionPipeline, out: Path) -> None:
    """Save a contact sheet of the base with one row per kind of defect."""
    prompts = [f"background {kind}".strip() for kind in ("", *KINDS) for _ in range(8)]
    settings = SamplingConfig().resolved("embedded")
    batches = sample(pipeline, prompts, [i % 8 for i in range(len(prompts))], width=64, height=64, config=settings)
    write_image(out, contact_sheet([image for batch in batches for image in batch.images], prompts, 8))


def join(folder: Path, out: Path) -> None:
    """Write the base of `train` in diffusers' format, one file per model; the UNet in half precision."""
    train_state = untrained_state(0)
    train_state.ema.values.clear()
    for name in PARTS:
        state: dict[str, Tensor] = {}
        for path in sorted((folder / name).glob("*.safetensors")):
            state |= load_file(path)
        train_state.ema.values |= {f"{name}.{key}": value.float() for key, value in state.items()}
    pipeline = assemble(train_state)
    pipeline.unet.half()
    pipeline.save_pretrained(out)


def main() -> None:
    """Draw, train or join."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("draw", "train", "join"))
    parser.add_argument("--images", type=Path, default=Path("surfaces"), help="folder of the drawn images")
    parser.add_argument("--out", type=Path, default=Path("base"), help="folder of the base")
    parser.add_argument("--start", type=Path, help="folder of a joined base to continue from")
    parser.add_argument("--trained", type=Path, help="join: output folder of `train`")
    parser.add_argument("--minutes", type=float, default=8.0, help="minutes of drawing, or of training")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw; 0 = use the images of `draw`")
    parser.add_argument("--first-worker", type=int, default=0, help="number of the first worker, unique among calls")
    parser.add_argument("--begin-with", type=int, default=20_000, help="images to wait for before the first step")
    parser.add_argument("--batch-size", type=int, default=256, help="images of 64x64 per step")
    parser.add_argument("--lr", type=float, default=0.0008, help="maximum learning rate")
    parser.add_argument("--seed", type=int, default=11, help="seed of weights, images and noise")
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
    trainer = build_trainer(options, device)
    record = train(options, trainer)
    for worker in workers:
        worker.terminate()
    draw_sheet(save_ema(trainer, options.out), options.out / "sheet.png")
    (options.out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
