"""Judge diffusion images by product: is the product right, and is the defect seen?

    python -m benchmarks.judge_products --help

For each product, an adapter is fine-tuned on 50 good parts with the default options. Its images are judged three times:

- share in product: colour, light and texture within the limits of good parts (`product_shares`);
- product: a CNN, trained on good parts of all products and of random other surfaces, names the product;
- kind: the CNN of `judge.py`, trained on procedural defects, names the kind of defect, or none. Its accuracy on real
  photographs is unknown, so only "some defect" is shown for them, beside its rate on real good parts.

Products are procedural ones, and photographs if INANDOUT_DATASETS names a folder with <name>/split.csv (columns image,
label, split), e.g. magnetic_tile, solar_cells, kolektor_sdd.
"""

import argparse
import csv
import os
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.judge import CLASSES, Judge, classify, train_judge
from inandout.data.colour import is_grey, without_colour
from inandout.data.config import Geometry, Shot
from inandout.data.geometry import fit_image
from inandout.data.images import ImageArray, Mask, read_image, write_image
from inandout.data.manifest import read_manifest
from inandout.data.surfaces import KINDS, Surface, draw_surface
from inandout.diffusion.base.base import Base, open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.finetune.config import DreamBoothConfig
from inandout.diffusion.finetune.presets import PRESETS
from inandout.diffusion.finetune.train_adapter import train_adapter
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.lora.safetensors_io import load_adapter, save_adapter
from inandout.diffusion.sample.config import GuidanceMode, SamplingConfig
from inandout.diffusion.sample.drawn_masks import draw_masks
from inandout.diffusion.sample.guidance import Composition
from inandout.diffusion.sample.inpaint import Canvas, find_fault
from inandout.diffusion.sample.presets import DRAWING_PRESETS, Strength
from inandout.diffusion.sample.sampler import sample
from inandout.diffusion.vae import to_tensor
from inandout.evaluation.product_statistics import product_shares
from inandout.reporting.figures import contact_sheet

PROCEDURAL = (
    "brushed golden", "ground blue", "grained red", "woven green", "concrete beige", "cast black", "wooden brown",
    "ceramic white", "brushed grey", "ceramic green",
)  # fmt: skip
"""Surface and colour of a product."""
SIDE = 64
N_GOOD = 50
TRAIN, UNSEEN, OTHER = 5_000, 900_000, 7_000_000
"""First seeds of images."""
PREVIEW = 24


class Setting(NamedTuple):
    """How images are drawn."""

    mode: GuidanceMode
    strength: Strength
    inpaint: bool = False
    """Whether defects are inpainted on good parts, inside masks that the model draws, instead of whole images."""
    words: bool = True
    """Whether prompts name a kind of defect."""

    def title(self) -> str:
        """Return the setting in words."""
        drawn = "inpainted" if self.inpaint else "whole"
        return f"{drawn} {self.mode} {self.strength.alpha:g} {self.strength.guidance:g}"


def settings(shot: Shot) -> list[Setting]:
    """Return the defaults of whole images and of inpainting, and whole images in the paper's way.

    The paper names a kind of defect at zero shot only.
    """
    composed, plain = DRAWING_PRESETS["embedded", shot, "composed"], DRAWING_PRESETS["embedded", shot, "plain"]
    return [
        Setting("composed", composed.whole), Setting("composed", composed.inpaint, inpaint=True),
        Setting("plain", plain.whole, words=shot == "zero"),
    ]  # fmt: skip


def good_parts(product: str, split: str, count: int) -> list[ImageArray]:
    """Return up to `count` good parts of a product; split train or test."""
    if product in photographed():
        return _photographs(product, split, 0, count)
    return [surface.image for surface in _surfaces(product, split, count)]


def defective_parts(product: str, split: str, count: int) -> list[ImageArray]:
    """Return up to `count` defective parts of a product; split train or test."""
    if product in photographed():
        return _photographs(product, split, 1, count)
    return [surface.image for surface in _surfaces(product, split, count, KINDS)]


def photographed() -> list[str]:
    """Return the names of data sets in the folder INANDOUT_DATASETS."""
    folder = Path(os.environ.get("INANDOUT_DATASETS", "/nonexistent"))
    return sorted(path.parent.name for path in folder.glob("*/split.csv"))


def _defects(product: str, count: int) -> tuple[list[ImageArray], list[Mask | None]]:
    """Return up to `count` defective training parts and, for procedural products, their masks."""
    if product in photographed():
        images = _photographs(product, "train", 1, count)
        return images, [None] * len(images)
    surfaces = _surfaces(product, "train", count, KINDS)
    return [surface.image for surface in surfaces], [surface.mask for surface in surfaces]


def _surfaces(product: str, split: str, count: int, kinds: Sequence[str] = ("",)) -> list[Surface]:
    surface, colour = product.split()
    style = next(s for s in range(1000) if draw_surface(16, 16, 0, "", surface, s).colour == colour)
    first = {"train": TRAIN, "test": UNSEEN}[split]
    return [draw_surface(SIDE, SIDE, first + i, kinds[i % len(kinds)], surface, style) for i in range(count)]


def _photographs(product: str, split: str, label: int, count: int) -> list[ImageArray]:
    folder = Path(os.environ["INANDOUT_DATASETS"], product)
    with (folder / "split.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["split"], row["label"]) == (split, str(label))]
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    size = Geometry(width=SIDE, height=SIDE, fit="crop")
    return [fit_image(read_image(folder / rows[i]["image"]), size) for i in chosen]


class ProductJudge(nn.Module):
    """Images (N, 3, H, W) in -1..1 to logits (N, products + 1): the products, then another surface."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = [(3, 24, 1), (24, 48, 2), (48, 64, 2), (64, 96, 2)]
        layers: list[nn.Module] = []
        for before, after, stride in widths:
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * 96, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Mean and spread of activations describe a product; a defect hardly changes them."""
        features = self.body(images)
        logits: Tensor = self.head(torch.cat([features.mean(dim=(2, 3)), features.std(dim=(2, 3))], dim=1))
        return logits


def train_product_judge(products: Sequence[str], steps: int = 900) -> ProductJudge:
    """Train on good parts alone: 400 of each product, and as many other surfaces as there are parts."""
    parts = [good_parts(product, "train", 400) for product in products]
    styles = {tuple(product.split()) for product in products if product not in photographed()}
    drawn = (draw_surface(SIDE, SIDE, OTHER + number) for number in range(10**6))
    others = (surface.image for surface in drawn if (surface.surface, surface.colour) not in styles)
    parts.append(list(islice(others, 3000)))
    tensors = [to_tensor(np.stack(images)) for images in parts]
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    judge = ProductJudge(len(parts)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    chances = np.array([0.7 / len(products)] * len(products) + [0.3])
    for _ in range(steps):
        targets = rng.choice(len(parts), 64, p=chances)
        batch = torch.stack([tensors[target][rng.integers(len(tensors[target]))] for target in targets])
        batch = batch.flip(3) if rng.random() < 0.5 else batch
        batch = batch + 0.02 * rng.random() * torch.randn_like(batch)
        loss = cross_entropy(judge(batch), torch.from_numpy(targets), label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return judge.eval()


@torch.no_grad()
def named(judge: ProductJudge, images: Sequence[ImageArray]) -> np.ndarray:
    """Return the class of each image."""
    return judge(to_tensor(np.stack(images))).argmax(dim=1).numpy()


def adapter_of(product: str, base: Base, shot: Shot, mask_weight: float, folder: Path) -> Adapter:
    """Load the adapter of a product, or train it with the default options and keep it."""
    weighted = f"_{mask_weight:g}" if mask_weight > 1 else ""
    path = folder / f"{product.replace(' ', '_')}_{shot}{weighted}.safetensors"
    if not path.exists():
        preset, plain = PRESETS["embedded", shot], SamplingConfig().resolved("embedded")
        prompts, seeds = ["background"] * preset.n_prior, range(10**6, 10**6 + preset.n_prior)
        prior = sample(base.pipeline, prompts, seeds, width=SIDE, height=SIDE, config=plain)
        images: list[ImageArray] = good_parts(product, "train", N_GOOD)
        masks: list[Mask | None] = []
        if shot != "zero":
            images, masks = _defects(product, 5 if shot == "few" else 60)
        adapter = train_adapter(
            base, images, epochs=preset.epochs, lr=preset.lr, config=DreamBoothConfig(mask_weight=mask_weight), seed=0,
            shot=shot, masks=masks, prior_images=[image for batch in prior for image in batch.images],
        )  # fmt: skip
        save_adapter(path, adapter)
    return load_adapter(path)


def draw(
    base: Base, adapter: Adapter, setting: Setting, kinds: Sequence[str], good: Sequence[ImageArray]
) -> tuple[list[ImageArray], Canvas | None]:
    """Draw an image of each kind in `kinds`; grey if the good parts are. Return them and their canvas."""
    prompts = [f"skt background {kind}" if setting.words else "skt background" for kind in kinds]
    seeds = range(len(kinds))
    merged = merge(base.pipeline, base.fingerprint, adapter, setting.strength.alpha)
    config = SamplingConfig(guidance=setting.strength.guidance).resolved("embedded")
    composition = Composition(base.pipeline, "skt background", "background") if setting.mode == "composed" else None
    canvas = None
    if setting.inpaint:
        assert composition, "only composed guidance draws masks"
        masks = draw_masks(merged, composition, prompts, seeds, width=SIDE, height=SIDE, config=config)
        canvas = Canvas(np.stack([good[number % len(good)] for number in seeds]), masks)
    batches = sample(
        merged, prompts, seeds, width=SIDE, height=SIDE, config=config, canvas=canvas, composition=composition
    )
    images = [image for batch in batches for image in batch.images]
    return [without_colour(image) for image in images] if all(map(is_grey, good)) else images, canvas


class Judges(NamedTuple):
    """Both networks and the products that the first one knows."""

    product: ProductJudge
    defect: Judge
    products: list[str]

    def row(self, product: str, images: list[ImageArray], kinds: Sequence[str] = ()) -> str:
        """Return shares: in product, product named, kind seen, some defect."""
        share = product_shares(images, good_parts(product, "train", N_GOOD)).product
        right = np.mean(named(self.product, images) == self.products.index(product))
        found = classify(self.defect, np.stack(images))
        seen = f"{np.mean(found == [CLASSES.index(kind) for kind in kinds]):.2f}" if kinds else "   -"
        return f"{share:.2f} {right:.2f} {seen} {np.mean(found > 0):.2f}"


def judge_product(
    product: str, shot: Shot, judges: Judges, base: Base, adapter: Adapter, count: int, sheets: Path
) -> None:  # fmt: skip
    """Print a row per setting, and write contact sheets."""
    print(f"{product}, real good parts: {judges.row(product, good_parts(product, 'test', 60))}")
    print(f"{product}, real defective parts: {judges.row(product, defective_parts(product, 'test', 60))}", flush=True)
    kinds, good = [KINDS[number % len(KINDS)] for number in range(count)], good_parts(product, "train", N_GOOD)
    for setting in settings(shot):
        images, canvas = draw(base, adapter, setting, kinds, good)
        row = judges.row(product, images, kinds if setting.words else ())
        if canvas:
            faults = list(map(find_fault, images, [True] * count, canvas.images, canvas.masks))
            row += f" {faults.count('unchanged') / count:.2f}"
        print(f"{product}, {setting.title()}: {row}", flush=True)
        captions = ["good"] * 8 + (kinds[:PREVIEW] if setting.words else [""] * len(images[:PREVIEW]))
        sheet = contact_sheet([*good[:8], *images[:PREVIEW]], captions)
        write_image(sheets / f"{product} {setting.title()}.png".replace(" ", "_"), sheet)


def main() -> None:
    """Train or load judges and adapters, then judge each product."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--products", default=",".join((*PROCEDURAL[:6], *photographed())), help="comma-separated")
    options.add_argument("--shot", choices=("zero", "few", "full"), default="zero")
    options.add_argument("--mask-weight", type=float, default=1, help="as in finetune; of procedural products")
    options.add_argument("--count", type=int, default=24, help="images per product and setting")
    options.add_argument("--folder", type=Path, default=Path("judged"), help="judges, adapters and contact sheets")
    options.add_argument("--pool", type=Path, help="judge this pool folder instead, for the first of --products")
    given = options.parse_args()
    sheets = given.folder / f"sheets_{given.shot}"
    sheets.mkdir(parents=True, exist_ok=True)
    products = [*PROCEDURAL, *photographed()]
    judges = Judges(ProductJudge(len(products) + 1), Judge(), products)
    load_judge(given.folder / "product.safetensors", judges.product, lambda: train_product_judge(products))
    load_judge(given.folder / "defect.safetensors", judges.defect, lambda: train_judge(1000))
    if given.pool:
        print("in product, product named, kind seen, some defect")
        print(judge_pool(given.pool, given.products.split(",")[0], judges))
        return
    base = open_base(BaseConfig())
    print("product, mode alpha guidance: in product, product named, kind seen, some defect, unchanged")
    for product in given.products.split(","):
        adapter = adapter_of(product, base, given.shot, given.mask_weight, given.folder)
        judge_product(product, given.shot, judges, base, adapter, given.count, sheets)


def judge_pool(folder: Path, product: str, judges: Judges) -> str:
    """Return the shares of a pool; the kind of an image is the last word of its prompt."""
    rows = [row for row in read_manifest(folder / "manifest.csv") if row.label == 1]
    images = [fit_image(read_image(row.image), Geometry(width=SIDE, height=SIDE, fit="crop")) for row in rows]
    kinds = [row.prompt.split()[-1] if row.prompt else "" for row in rows]
    return judges.row(product, images, kinds if set(kinds) <= set(KINDS) else ())


def load_judge(path: Path, judge: nn.Module, train: Callable[[], nn.Module]) -> None:
    """Load the weights of a judge; train and save it first if the file does not exist."""
    if not path.exists():
        weights = train().state_dict()
        save_file({name: value.contiguous() for name, value in weights.items()}, path)
    judge.load_state_dict(load_file(path))
    judge.eval()


if __name__ == "__main__":
    main()
