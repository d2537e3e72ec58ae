"""Images per second of `sample` with its defaults, against one image at a time with 50 steps of DDIM.

    python benchmarks/sampling_speed.py --threads 2

Three variants use the same base, prompts and seeds: single images with DDIM; batches with DDIM; and batches with
DPM-Solver++, the default. They alternate, so that other load on the machine slows all of them. Speed depends on the
architecture of the base only, so that the base may be untrained.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from inandout.diffusion.base.base import open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.pretrain.assemble import assemble, new_train_state, new_vae
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.sampler import image_seed, sample

PROMPT = "skt background cracked"
DEFAULT = SamplingConfig().resolved("embedded")
DDIM = DEFAULT.model_copy(update={"scheduler": "ddim", "steps": 50})
WAYS = {
    "ddim, 50 steps, one by one": DDIM.model_copy(update={"sample_batch": 1}),
    f"ddim, 50 steps, batches of {DDIM.sample_batch}": DDIM,
    f"{DEFAULT.scheduler}, {DEFAULT.steps} steps, batches of {DEFAULT.sample_batch}": DEFAULT,
}
"""Variants, slowest first; the first two differ in batching only."""


def open_pipeline(folder: str) -> StableDiffusionPipeline:
    """Return a base from a folder, or the embedded architecture with random weights; both are channels-last."""
    if folder:
        return open_base(BaseConfig(base=folder)).pipeline
    pipeline = assemble(new_train_state(new_vae(0), 0))
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    return pipeline


def rate(pipeline: StableDiffusionPipeline, config: SamplingConfig, count: int, size: tuple[int, int]) -> float:
    """Return images per second."""
    seeds = [image_seed(0, number) for number in range(count)]
    started = time.perf_counter()
    batches = list(sample(pipeline, [PROMPT] * count, seeds, width=size[0], height=size[1], config=config))
    assert sum(len(batch.images) for batch in batches) == count
    return count / (time.perf_counter() - started)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="", help="folder in diffusers' format (default: untrained embedded base)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per variant, after a warm-up round (default: 5)")
    parser.add_argument("--count", type=int, default=8, help="images per round (default: 8)")
    parser.add_argument("--width", type=int, default=64, help="width of images in px (default: 64)")
    parser.add_argument("--height", type=int, default=192, help="height of images in px (default: 192)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipeline, size = open_pipeline(options.base), (options.width, options.height)
    rates = [
        {way: rate(pipeline, config, options.count, size) for way, config in WAYS.items()}
        for _ in range(options.rounds + 1)
    ][1:]
    base = Path(options.base).name if options.base else "untrained"
    print(f"{size[0]}x{size[1]}, guidance {DEFAULT.guidance}, {options.threads} threads, base: {base}")
    slowest = next(iter(WAYS))
    for way in WAYS:
        ratios = [round_[way] / round_[slowest] for round_ in rates]
        median = statistics.median(round_[way] for round_ in rates)
        spread = f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} .. {max(ratios):.2f})"
        print(f"  {way:32} {median:6.2f} images per second, {spread}")


if __name__ == "__main__":
    main()
