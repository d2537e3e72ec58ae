"""Measure whether a base draws the requested kind of defect. `python benchmarks/judge.py --help`.

A small CNN is trained to classify the kinds of defects on procedural images only, and then classifies generated
images. The script prints its confusion matrices on unseen procedural and on generated images, the reconstruction
quality of the VAE on unseen surfaces and on photographs of magnetic tiles (grey .jpg files in the folder of the
environment variable INANDOUT_TILES; skipped if it is not set), and the time per image of 64x192.
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
from inandout.diffusion.base.base import open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.base.identity import EMBEDDED
from inandout.diffusion.pretrain.config import HELD_OUT
from inandout.diffusion.pretrain.stream import SurfaceStream
from inandout.diffusion.reconstruction import measure_reconstruction
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.sampler import sample
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
        """Pool maximum (small defects) and mean (texture) of the activations, and classify."""
        features = self.body(images - images.mean(dim=(2, 3), keepdim=True))
        logits: Tensor = self.head(torch.cat([features.amax(dim=(2, 3)), features.mean(dim=(2, 3))], dim=1))
        return logits


def _layer(before: int, after: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


def train_judge(steps: int, seed: int = 2) -> Judge:
    """Train on surface streams that no base was trained on."""
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
def classify(judge: Judge, images: ImageBatch) -> np.ndarray:
    """Return the index (N,) in `CLASSES` of each image (N, H, W, 3)."""
    logits = [judge(to_tensor(images[start : start + 64])) for start in range(0, len(images), 64)]
    return torch.cat(logits).argmax(dim=1).numpy()


def print_confusion(title: str, requested: list[int], predicted: np.ndarray) -> None:
    """Print requested classes (rows) against predicted classes (columns), in percent of each row."""
    names = [name or "none" for name in CLASSES]
    accuracy = np.mean(np.array(requested) == predicted)
    print(f"\n{title}: {len(requested)} images, accuracy {accuracy:.1%}; percent of each row")
    print("requested \\ predicted " + "".join(f"{name:>10}" for name in names))
    for row, name in enumerate(names):
        of_row = predicted[np.array(requested) == row]
        print(f"{name:21} " + "".join(f"{np.mean(of_row == column) * 100:10.0f}" for column in range(len(names))))


def prompts_for(defect: str, count: int) -> list[str]:
    """Return prompts; every second one also names colour and surface."""
    rng = np.random.default_rng(CLASSES.index(defect))
    prompts = []
    for number in range(count):
        surface = str(rng.choice(list(PALETTES)))
        before = "" if number % 2 == 0 else f"{rng.choice(PALETTES[surface])} {surface} "
        prompts.append(f"{before}background {defect}".strip())
    return prompts


def read_tiles(folder: Path) -> ImageBatch:
    """Read every 8th photograph, resize its short side to 96 px, and crop the centre."""
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
    """Print the reconstruction quality of the VAE."""
    sets = {"unseen surfaces": SurfaceStream(HELD_OUT, 256).batch(0, (64, 64)).images}
    if "INANDOUT_TILES" in os.environ:
        sets["magnetic tiles"] = read_tiles(Path(os.environ["INANDOUT_TILES"]))
    for name, images in sets.items():
        copies = np.concatenate([decode(vae, encode(vae, part)) for part in np.array_split(images, 16)])
        psnr, worst, energy = measure_reconstruction(images, copies)
        print(f"VAE on {len(images)} {name}: {psnr:.1f} dB (worst {worst:.1f}), {energy:.1%} of the gradient energy")


def report_time(base: StableDiffusionPipeline) -> None:
    """Print the seconds per image of 64x192, the fastest of three batches of 8."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        list(sample(base, ["background"] * 8, range(8), width=64, height=192, config=SETTINGS))
        seconds.append((time.perf_counter() - start) / 8)
    settings = f"{SETTINGS.steps} steps, guidance {SETTINGS.guidance}, batch 8"
    slower = ", ".join(f"{s:.2f}" for s in sorted(seconds)[1:])
    print(f"64x192, {settings}: {min(seconds):.2f} s per image", end="")
    print(f" ({torch.get_num_threads()} threads; other batches: {slower})")


def report_defects(
    base: StableDiffusionPipeline, judge: Judge, count: int, settings: SamplingConfig, sheets: Path
) -> None:
    """Print the confusion matrix of generated images; save a contact sheet per class."""
    sheets.mkdir(parents=True, exist_ok=True)
    requested, predicted = [], []
    for number, defect in enumerate(CLASSES):
        prompts, seeds = prompts_for(defect, count), range(1000 * number, 1000 * number + count)
        batches = sample(base, prompts, seeds, width=64, height=64, config=settings)
        images = np.concatenate([batch.images for batch in batches])
        requested += [number] * count
        predicted.append(classify(judge, images))
        captions = [f"{prompt}: {CLASSES[i] or 'none'}" for prompt, i in zip(prompts, predicted[-1], strict=True)]
        write_image(sheets / f"{defect or 'none'}.png", contact_sheet(list(images), captions))
    print_confusion("generated images", requested, np.concatenate(predicted))


def main() -> None:
    """Train or load the classifier, then measure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", type=Path, default=EMBEDDED, help="folder in diffusers' format")
    options.add_argument("--vae-only", action="store_true", help="measure the VAE and stop")
    options.add_argument("--judge", type=Path, default=Path("judge.safetensors"), help="cache of the classifier")
    options.add_argument("--steps", type=int, default=1500, help="training steps of the classifier")
    options.add_argument("--count", type=int, default=48, help="generated images per class")
    options.add_argument("--sampling-steps", type=int, default=SETTINGS.steps)
    options.add_argument("--guidance", type=float, default=SETTINGS.guidance)
    options.add_argument("--ddim", action="store_true", help="use 50 steps of DDIM, as in the paper")
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
    targets = [CLASSES.index(defect) for batch in unseen for defect in batch.defects]
    print_confusion("unseen procedural images", targets, classify(judge, np.concatenate([b.images for b in unseen])))
    base = open_base(BaseConfig(base=str(given.base))).pipeline
    report_time(base)
    settings = SETTINGS.model_copy(
        update={"guidance": given.guidance, "steps": given.sampling_steps} | (DDIM if given.ddim else {})
    )
    report_defects(base, judge, given.count, settings, given.sheets)


if __name__ == "__main__":
    main()
