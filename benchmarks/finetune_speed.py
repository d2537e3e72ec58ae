"""Compare speed and memory of `dreambooth` with a bare loop that works like diffusers' example.

    python benchmarks/finetune_speed.py --threads 2

The bare loop works like `train_dreambooth_lora.py` of diffusers with a trained text encoder and prior preservation.
In every step it opens, resizes and crops the image files of the batch, encodes them with the VAE, and tokenises and
encodes the prompt of every image. Instance and class images are concatenated, in PyTorch's default memory layout.
`dreambooth` reads and encodes every image once, encodes each of the two prompts once per step, computes channels-last
with the UNet in evaluation mode, and uses PyTorch's fused AdamW on one vector. Both use peft for adapted layers. Base
(the embedded architecture, untrained), adapter, images, sizes, prompts and loss are the same. Instance images have the
size of KolektorSDD2 images, class images have the training size. A third loop is the bare loop with images that are
read in advance.

Each loop runs in its own process, as it does for a user. The loops alternate in many short turns, so that other load
on the machine slows all of them; waiting loops compute nothing. The result of a turn is its median step, which excludes
the first step with cold caches and the single encoding of all images. The benchmark prints median and quartiles of the
ratios over all turns. Memory is the peak of the process minus its memory after the imports.

Diffusers' example trains on square images only; the other size is included because `dreambooth` supports it.
"""

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image, ImageOps
from torchvision.transforms import functional
from tqdm import tqdm

from inandout.data.config import Geometry
from inandout.data.geometry import fit_image
from inandout.data.images import ImageBatch, read_image, write_image
from inandout.data.surfaces import draw_surface
from inandout.diffusion.base.base import Base
from inandout.diffusion.finetune.config import DreamBoothConfig
from inandout.diffusion.finetune.dreambooth import MAX_GRADIENT_NORM, dreambooth
from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, Example
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import adapter_parameters, add_adapter
from inandout.diffusion.pretrain.assemble import assemble, new_train_state, new_vae
from inandout.diffusion.snr_weighting import min_snr_weights, prediction_target
from inandout.diffusion.vae import encode

PROMPTS = ("skt background", "background")
SIZES = ((64, 64), (64, 192))
CAMERA = (230, 630)
BATCH = 12
TURN = 5
LR = 1e-4


def new_base(channels_last: bool) -> Base:
    """Return the embedded architecture, untrained, with an adapter."""
    pipeline = assemble(new_train_state(new_vae(0), 0))
    pipeline.unet.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    add_adapter(pipeline, AdapterConfig(), 0)
    return Base(pipeline, "0" * 32, "embedded")


def draw_images(folder: Path, width: int, height: int) -> list[Path]:
    """Write a batch: instance images of camera size, then class images of the training size."""
    files = [folder / f"{index:02}.png" for index in range(BATCH)]
    for index, file in enumerate(files):
        size = CAMERA if index < BATCH // 2 else (width, height)
        write_image(file, draw_surface(*size, seed=index).image)
    return files


def our_images(files: list[Path], width: int, height: int) -> ImageBatch:
    """Return images (N, H, W, 3), read as `finetune` reads them."""
    geometry = Geometry(width=width, height=height)
    return np.stack([fit_image(read_image(file), geometry) for file in files])


def bare_images(files: list[Path], width: int, height: int) -> torch.Tensor:
    """Return images (N, 3, H, W) in -1..1, resized to cover the frame and cropped, as in diffusers' example."""
    return torch.stack([_bare_image(file, width, height) for file in files])


def _bare_image(path: Path, width: int, height: int) -> torch.Tensor:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    scale = max(width / image.width, height / image.height)
    cover = [max(round(image.height * scale), height), max(round(image.width * scale), width)]
    return 2 * functional.to_tensor(functional.center_crop(functional.resize(image, cover), [height, width])) - 1


def our_loop(files: list[Path], width: int, height: int, on_step: Callable[[], None]) -> None:
    """Train with `dreambooth`."""
    base = new_base(channels_last=True)
    latents = encode(base.pipeline.vae, our_images(files, width, height))
    examples = [Example(latent, prior=index >= BATCH // 2) for index, latent in enumerate(latents)]
    config = DreamBoothConfig(batch_size=BATCH, repeats=10_000, optimiser="adamw")
    dataset = DreamBoothDataset(examples, *PROMPTS)
    dreambooth(base, dataset, epochs=1, lr=LR, config=config, seed=0, on_step=lambda *_: on_step())


def bare_loop(files: list[Path], width: int, height: int, on_step: Callable[[], None], *, reads: bool) -> None:
    """Train with the bare loop; without `reads`, it reads the images once before the first step."""
    base = new_base(channels_last=False)
    pipeline, scheduler = base.pipeline, DDIMScheduler.from_config(base.pipeline.scheduler.config)
    pipeline.unet.train()
    pipeline.text_encoder.train()
    parameters = adapter_parameters(pipeline)
    optimiser = torch.optim.AdamW(parameters, lr=LR)
    prompts = [PROMPTS[index >= BATCH // 2] for index in range(BATCH)]
    images = bare_images(files, width, height)
    while True:
        images = bare_images(files, width, height) if reads else images
        loss = bare_loss(pipeline, scheduler, images, prompts)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimiser.step()
        optimiser.zero_grad()
        loss.item()
        on_step()


def bare_loss(
    pipeline: StableDiffusionPipeline, scheduler: DDIMScheduler, images: torch.Tensor, prompts: list[str]
) -> torch.Tensor:  # fmt: skip
    """Return the loss of a batch whose first half are instance images and whose second half are class images."""
    with torch.no_grad():
        latents = pipeline.vae.encode(images).latents * pipeline.vae.config.scaling_factor
    tokenizer = pipeline.tokenizer
    tokens = tokenizer(
        prompts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    )
    states = pipeline.text_encoder(tokens.input_ids)[0]
    noise, times = torch.randn_like(latents), torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),))
    predicted = pipeline.unet(scheduler.add_noise(latents, noise, times), times, states).sample
    errors = (predicted - prediction_target(scheduler, latents, noise, times)).square().mean(dim=(1, 2, 3))
    instance, prior = (errors * min_snr_weights(scheduler, times)).chunk(2)
    return instance.mean() + prior.mean()


LOOPS: dict[str, Callable[[list[Path], int, int, Callable[[], None]], None]] = {
    "ours": our_loop,
    "bare": partial(bare_loop, reads=True),
    "bare without reading": partial(bare_loop, reads=False),
}


class Turns:
    """Callback of a step; after a turn it sends the median seconds of a step and the peak memory in MB."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.imported = pipe, peak_memory()
        self.wait()
        self.started = time.perf_counter()

    def __call__(self) -> None:
        """Record the end of a step."""
        self.times.append(time.perf_counter() - self.started)
        if len(self.times) == TURN:
            self.pipe.send((statistics.median(self.times), peak_memory() - self.imported))
            self.wait()
        self.started = time.perf_counter()

    def wait(self) -> None:
        """Wait for the next turn; exit after the last one."""
        if not self.pipe.recv():
            sys.exit()
        self.times: list[float] = []


def peak_memory() -> float:
    """Return the peak resident memory of the process in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def take_turns(name: str, files: list[Path], width: int, height: int, threads: int, pipe: Connection) -> None:
    """Run a loop until `pipe` receives False."""
    torch.set_num_threads(threads)
    LOOPS[name](files, width, height, Turns(pipe))


def measure(
    files: list[Path], width: int, height: int, turns: int, threads: int
) -> dict[str, list[tuple[float, float]]]:
    """Return loop to (median seconds per step, peak memory in MB) of every turn, without the warm-up turn."""
    context, pipes = get_context("spawn"), {}
    for name in LOOPS:
        pipes[name], end = context.Pipe()
        context.Process(target=take_turns, args=(name, files, width, height, threads, end), daemon=True).start()
        end.close()  # so that a failed loop raises EOFError here
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in LOOPS}
    for _ in tqdm(range(turns + 1), f"{width}x{height}", unit="turn"):
        for name, pipe in pipes.items():
            pipe.send(True)
            measured[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    for process in active_children():
        process.join()
    return {name: values[1:] for name, values in measured.items()}


def main() -> None:
    """Print one block per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20, help="turns per loop, after one warm-up turn (default: 20)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    options = parser.parse_args()
    if options.turns < 2:
        parser.error(f"--turns {options.turns}: quartiles need 2 or more")
    for width, height in SIZES:
        with TemporaryDirectory() as folder:
            files = draw_images(Path(folder), width, height)
            measured = measure(files, width, height, options.turns, options.threads)
        print(f"{width}x{height}, batch {BATCH}, {options.threads} threads, {options.turns} turns")
        for name, values in measured.items():
            ratios = [other / ours for (ours, _), (other, _) in zip(measured["ours"], values, strict=True)]
            speed, memory = 1 / statistics.median(seconds for seconds, _ in values), values[-1][1]
            print(f"  {name:20} {speed:6.2f} steps per second, {memory:6.0f} MB; ours is", end=" ")
            low, median, high = statistics.quantiles(ratios, n=4)
            print(f"{median:.2f} times as fast ({low:.2f} .. {high:.2f})", flush=True)


if __name__ == "__main__":
    main()
