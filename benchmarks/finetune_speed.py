"""Speed and memory of DreamBooth here against a bare loop in the manner of diffusers' example.

    python benchmarks/finetune_speed.py --threads 2

The bare loop does what `train_dreambooth_lora.py` of diffusers does with a trained text encoder and prior preservation:
every step it opens the batch's picture files, resizes, crops and encodes them by the VAE, tokenises and encodes the
prompt of every picture, instance and class pictures concatenated, in PyTorch's default memory layout. Ours reads and
encodes every picture once, reads each of the two prompts once a step, computes channels-last and adapted layers as in
`inandout/diffusion/products.py`, and its AdamW is PyTorch's fused one. Base (the embedded architecture, untrained),
adapter, pictures, sizes, prompts and loss are the same; instance pictures have the size of those of KolektorSDD2, class
pictures that of the training. A third loop is the bare one without the reading, which is done before it begins.

They take turns in one process, ten steps each, so that a machine that is busy for a while slows all. A turn counts by
its median, so that its first step, which has to get its memory back, does not, and neither does our encoding of every
picture, which is done once. Peak memory is that of a process of its own for each, less that of one that only imports.
"""

import argparse
import atexit
import resource
import shutil
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image, ImageOps
from torchvision.transforms import functional

from inandout.data.geometry import Geometry, fit_image
from inandout.data.images import read_image, write_image
from inandout.data.surfaces import draw_surface
from inandout.diffusion.adapter import AdapterConfig, adapter_parameters, add_adapter
from inandout.diffusion.autoencoder import encode
from inandout.diffusion.base import Base
from inandout.diffusion.dreambooth import MAX_GRADIENT_NORM, DreamBoothConfig, dreambooth
from inandout.diffusion.embedded import assemble, new_student, new_vae
from inandout.diffusion.fidelity import Pictures
from inandout.diffusion.lesson import Lesson, Shown
from inandout.diffusion.loss import min_snr_weights, target
from inandout.diffusion.pretrain_unet import Student
from inandout.diffusion.steps import OnStep

PROMPTS = ("skt background", "background")
SIZES = ((64, 64), (64, 192))
CAMERA = (230, 630)
BATCH = 12
TURN = 10
LR = 1e-4


@cache
def student() -> Student:
    """What `assemble` copies; its VAE takes seconds to make."""
    return new_student(new_vae(0), 0)


def new_base(channels_last: bool) -> Base:
    """The embedded architecture with an adapter."""
    pipeline = assemble(student())
    pipeline.unet.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    add_adapter(pipeline.unet, pipeline.text_encoder, AdapterConfig(), 0)
    return Base(pipeline, "0" * 32, "embedded")


@cache
def picture_files(width: int, height: int) -> list[Path]:
    """A batch: instance pictures as a camera takes them, then class pictures in the size of the training."""
    folder = Path(mkdtemp(prefix="finetune_speed_"))
    atexit.register(shutil.rmtree, folder)
    for place in range(BATCH):
        size = CAMERA if place < BATCH // 2 else (width, height)
        write_image(folder / f"{place:02}.png", draw_surface(*size, seed=place).picture)
    return sorted(folder.iterdir())


def our_pictures(width: int, height: int) -> Pictures:
    """(N, H, W, 3), as `finetune` reads them."""
    geometry = Geometry(width=width, height=height)
    return np.stack([fit_image(read_image(path), geometry) for path in picture_files(width, height)])


def bare_pictures(width: int, height: int) -> torch.Tensor:
    """(N, 3, H, W), -1..1, as diffusers' example reads them: each opened, resized to cover the frame and cropped."""
    return torch.stack([_bare_picture(path, width, height) for path in picture_files(width, height)])


def _bare_picture(path: Path, width: int, height: int) -> torch.Tensor:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    scale = max(width / image.width, height / image.height)
    cover = [max(round(image.height * scale), height), max(round(image.width * scale), width)]
    return 2 * functional.to_tensor(functional.center_crop(functional.resize(image, cover), [height, width])) - 1


def our_loop(width: int, height: int, steps: int, on_step: OnStep = lambda step, values: None) -> None:
    """`dreambooth`."""
    base = new_base(channels_last=True)
    latents = encode(base.pipeline.vae, our_pictures(width, height))
    shown = [Shown(latent, prior=place >= BATCH // 2) for place, latent in enumerate(latents)]
    config = DreamBoothConfig(batch_size=BATCH, repeats=steps, optimiser="adamw")
    dreambooth(base, Lesson(shown, *PROMPTS), epochs=1, lr=LR, config=config, seed=0, on_step=on_step)


def bare_loop(width: int, height: int, *, reads: bool) -> Iterator[float]:
    """Seconds of step after step; unless it `reads`, the pictures are there before."""
    base = new_base(channels_last=False)
    pipeline, scheduler = base.pipeline, DDIMScheduler.from_config(base.pipeline.scheduler.config)
    pipeline.unet.train()
    pipeline.text_encoder.train()
    parameters = adapter_parameters(pipeline.unet, pipeline.text_encoder)
    optimiser = torch.optim.AdamW(parameters, lr=LR)
    prompts = [PROMPTS[place >= BATCH // 2] for place in range(BATCH)]
    pictures = bare_pictures(width, height)
    while True:
        started = time.perf_counter()
        pictures = bare_pictures(width, height) if reads else pictures
        loss = bare_loss(pipeline, scheduler, pictures, prompts)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimiser.step()
        optimiser.zero_grad()
        loss.item()
        yield time.perf_counter() - started


def bare_loss(pipeline: object, scheduler: DDIMScheduler, pictures: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """Of a batch whose first half are instance pictures and whose second half are class pictures."""
    with torch.no_grad():
        latents = pipeline.vae.encode(pictures).latents * pipeline.vae.config.scaling_factor
    tokenizer = pipeline.tokenizer
    tokens = tokenizer(
        prompts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    states = pipeline.text_encoder(tokens.input_ids)[0]
    noise, times = torch.randn_like(latents), torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),))
    predicted = pipeline.unet(scheduler.add_noise(latents, noise, times), times, states).sample
    errors = (predicted - target(scheduler, latents, noise, times)).square().mean(dim=(1, 2, 3))
    instance, prior = (errors * min_snr_weights(scheduler, times)).chunk(2)
    return instance.mean() + prior.mean()


BARE = {"bare": partial(bare_loop, reads=True), "bare without reading": partial(bare_loop, reads=False)}


def peak_memory(loop: str, width: int, height: int, threads: int) -> float:
    """MB that a process of its own has at most held for a few steps of a loop; with "" it does nothing but import.

    To be called before anything is computed: a process begins with the peak of the one that starts it.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_peak, loop, width, height, threads).result()


def _peak(loop: str, width: int, height: int, threads: int) -> float:
    torch.set_num_threads(threads)
    if loop == "ours":
        our_loop(width, height, 4)
    elif loop:
        deque(islice(BARE[loop](width, height), 4))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure(width: int, height: int, turns: int) -> dict[str, list[float]]:
    """Median seconds a step in every turn of every loop, one turn to warm up left out."""
    bare = {name: loop(width, height) for name, loop in BARE.items()}
    times: dict[str, list[float]] = {name: [] for name in ("ours", *bare)}
    ours: list[float] = []
    started = time.perf_counter()

    def on_step(step: int, _values: dict[str, float]) -> None:
        nonlocal started
        ours.append(time.perf_counter() - started)
        if step % TURN == 0:
            times["ours"].append(statistics.median(ours[-TURN:]))
            for name, loop in bare.items():
                times[name].append(statistics.median(islice(loop, TURN)))
        started = time.perf_counter()

    our_loop(width, height, (turns + 1) * TURN, on_step)
    return {name: seconds[1:] for name, seconds in times.items()}


def main() -> None:
    """Print a block a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="of each loop, after one to warm up (default 7)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loops = ("ours", *BARE)
    imported = peak_memory("", 0, 0, options.threads)
    held = {(size, name): peak_memory(name, *size, options.threads) - imported for size in SIZES for name in loops}
    for width, height in SIZES:
        times = measure(width, height, options.turns)
        print(f"{width}x{height}, batch {BATCH}, {options.threads} threads, {options.turns} turns")
        for name, seconds in times.items():
            ratios = [other / ours for ours, other in zip(times["ours"], seconds, strict=True)]
            speed, memory = 1 / statistics.median(seconds), held[(width, height), name]
            print(f"  {name:20} {speed:6.2f} steps a second, {memory:6.0f} MB; ours is", end=" ")
            print(f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} .. {max(ratios):.2f})", flush=True)


if __name__ == "__main__":
    main()
