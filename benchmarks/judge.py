"""Judge a base: does it draw the defect that it is asked for? `python benchmarks/judge.py --help`.

A small CNN learns the kinds of defects from procedural images alone, never from generated ones, and then names the
defect in generated images. Printed are its confusion matrix on both, what the VAE keeps of unseen surfaces and of
photographs of magnetic tiles (folder of grey .jpg files in the environment variable INANDOUT_TILES, left out without
it), and the time for an image of 64x192.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from inandout.data.images import ImageBatch, write_image
from inandout.data.surfaces import KINDS, PALETTES
from inandout.diffusion.base.base import EMBEDDED, BaseConfig, open_base
from inandout.diffusion.pretrain.stream import HELD_OUT, SurfaceStream
from inandout.diffusion.reconstruction import measure_reconstruction
from inandout.diffusion.sample.sampler import SamplingConfig, sample
from inandout.diffusion.vae import decode, encode, to_tensor
from inandout.reporting.figures import contact_sheet

CLASSES = ("", *KINDS)
TILE_SIDE, TILES_EVERY = 96, 8
SETTINGS = SamplingConfig().resolved("embedded")
DDIM = {"scheduler": "ddim", "steps": 50}


class Judge(nn.Module):
    """Images (N, 3, H, W) in -1..1 to logits (N, 7): no defect, then `KINDS`."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, 24, 1), (24, 48, 2), (48, 48, 1), (48, 96, 2), (96, 96, 1), (96, 160, 2), (160, 160, 1)]
        self.body = nn.Sequential(*(layer for widths_stride in widths for layer in _layer(*widths_stride)))
        self.head = nn.Linear(320, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """A defect is small, a texture is everywhere: the head sees the largest and the mean activation."""
        features = self.body(images - images.mean(dim=(2, 3), keepdim=True))
        logits: Tensor = self.head(torch.cat([features.amax(dim=(2, 3)), features.mean(dim=(2, 3))], dim=1))
        return logits


def _layer(before: int, after: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


def train_judge(steps: int, seed: int = 2) -> Judge:
    """Train on schools that no base was trained on."""
    torch.manual_seed(seed)
    judge, stream = Judge().to(memory_format=torch.channels_last), SurfaceStream(HELD_OUT + seed, 64)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for step in range(steps):
        batch = stream.batch(step)
        targets = torch.tensor([CLASSES.index(defect) for defect in batch.defects])
        loss = cross_entropy(judge(to_tensor(batch.images)), targets, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"judge: step {step}, loss {loss.item():.3f}", flush=True)
    return judge.eval()


@torch.no_grad()
def verdicts(judge: Judge, images: ImageBatch) -> np.ndarray:
    """Class of each image (N, H, W, 3), as its place in `CLASSES`."""
    logits = [judge(to_tensor(images[start : start + 64])) for start in range(0, len(images), 64)]
    return torch.cat(logits).argmax(dim=1).numpy()


def print_confusion(title: str, asked: list[int], seen: np.ndarray) -> None:
    """A row a class that was asked for, a column a class that was seen, in percent."""
    names = [name or "none" for name in CLASSES]
    print(f"\n{title}: {len(asked)} images, {np.mean(np.array(asked) == seen):.1%} right; percent of each row")
    print("asked \\ seen " + "".join(f"{name:>10}" for name in names))
    for row, name in enumerate(names):
        chosen = seen[np.array(asked) == row]
        print(f"{name:12} " + "".join(f"{np.mean(chosen == column) * 100:10.0f}" for column in range(len(names))))


def prompts_for(defect: str, count: int) -> list[str]:
    """Half are as short as can be, half name colour and surface."""
    rng = np.random.default_rng(CLASSES.index(defect))
    prompts = []
    for number in range(count):
        surface = str(rng.choice(list(PALETTES)))
        before = "" if number % 2 == 0 else f"{rng.choice(PALETTES[surface])} {surface} "
        prompts.append(f"{before}background {defect}".strip())
    return prompts


def read_tiles(folder: Path) -> ImageBatch:
    """Every 8th photograph, its short side resized to 96 px, the middle cut out."""
    tiles = []
    for path in sorted(folder.glob("*.jpg"))[::TILES_EVERY]:
        with Image.open(path) as image:
            share = TILE_SIDE / min(image.size)
            size = (max(round(image.width * share), TILE_SIDE), max(round(image.height * share), TILE_SIDE))
            pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))
        top, left = (pixels.shape[0] - TILE_SIDE) // 2, (pixels.shape[1] - TILE_SIDE) // 2
        tiles.append(pixels[top : top + TILE_SIDE, left : left + TILE_SIDE])
    return np.stack(tiles)


def report_vae(vae: AutoencoderTiny) -> None:
    """What the VAE keeps."""
    sets = {"unseen surfaces": SurfaceStream(HELD_OUT, 256).batch(0, (64, 64)).images}
    if "INANDOUT_TILES" in os.environ:
        sets["magnetic tiles"] = read_tiles(Path(os.environ["INANDOUT_TILES"]))
    for name, images in sets.items():
        copies = np.concatenate([decode(vae, encode(vae, part)) for part in np.array_split(images, 16)])
        psnr, worst, energy = measure_reconstruction(images, copies)
        print(f"VAE on {len(images)} {name}: {psnr:.1f} dB (worst {worst:.1f}), {energy:.1%} of the gradient energy")


def report_time(base: StableDiffusionPipeline) -> None:
    """Seconds an image of 64x192, the best of three batches of 8."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        list(sample(base, ["background"] * 8, range(8), width=64, height=192, config=SETTINGS))
        seconds.append((time.perf_counter() - start) / 8)
    settings = f"{SETTINGS.steps} steps, guidance {SETTINGS.guidance}, batch 8"
    print(f"64x192, {settings}: {min(seconds):.2f} s an image", end="")
    print(f" ({torch.get_num_threads()} threads, others were {', '.join(f'{s:.2f}' for s in sorted(seconds)[1:])})")


def report_defects(
    base: StableDiffusionPipeline, judge: Judge, count: int, settings: SamplingConfig, sheets: Path
) -> None:
    """Confusion matrix of generated images, and a contact sheet a class."""
    sheets.mkdir(parents=True, exist_ok=True)
    asked, seen = [], []
    for number, defect in enumerate(CLASSES):
        prompts, seeds = prompts_for(defect, count), range(1000 * number, 1000 * number + count)
        made = sample(base, prompts, seeds, width=64, height=64, config=settings)
        images = np.concatenate([batch.images for batch in made])
        asked += [number] * count
        seen.append(verdicts(judge, images))
        captions = [f"{p}: {CLASSES[v] or 'none'}" for p, v in zip(prompts, seen[-1], strict=True)]
        write_image(sheets / f"{defect or 'none'}.png", contact_sheet(list(images), captions))
    print_confusion("generated images", asked, np.concatenate(seen))


def main() -> None:
    """Train or load the judge, then measure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", type=Path, default=EMBEDDED, help="folder in diffusers' format")
    options.add_argument("--vae-only", action="store_true", help="measure the VAE and stop")
    options.add_argument("--judge", type=Path, default=Path("judge.safetensors"), help="kept here between calls")
    options.add_argument("--steps", type=int, default=1500, help="of the judge's training")
    options.add_argument("--count", type=int, default=48, help="generated images of each class")
    options.add_argument("--guidance", type=float, default=SETTINGS.guidance)
    options.add_argument("--ddim", action="store_true", help="50 steps of DDIM, as in the paper, not the default")
    options.add_argument("--sheets", type=Path, default=Path("sheets"), help="folder for contact sheets")
    given = options.parse_args()
    report_vae(AutoencoderTiny.from_pretrained(given.base / "vae", local_files_only=True))
    if given.vae_only:
        return
    judge = Judge().eval()
    if given.judge.exists():
        judge.load_state_dict(load_file(given.judge))
    else:
        judge = train_judge(given.steps)
        save_file({name: value.contiguous() for name, value in judge.state_dict().items()}, given.judge)
    unseen = [SurfaceStream(HELD_OUT + 1, 64).batch(number, (64, 64)) for number in range(10)]
    asked = [CLASSES.index(defect) for batch in unseen for defect in batch.defects]
    print_confusion("unseen procedural images", asked, verdicts(judge, np.concatenate([b.images for b in unseen])))
    base = open_base(BaseConfig(base=str(given.base))).pipeline
    report_time(base)
    settings = SETTINGS.model_copy(update={"guidance": given.guidance} | (DDIM if given.ddim else {}))
    report_defects(base, judge, given.count, settings, given.sheets)


if __name__ == "__main__":
    main()
