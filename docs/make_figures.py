"""Draw the images of the README from the package itself.

python docs/make_figures.py
"""

from pathlib import Path

from PIL import Image

from inandout.data.images import ImageArray
from inandout.data.surfaces import KINDS, SURFACES, draw_surface
from inandout.diffusion.base.base import BaseConfig, open_base
from inandout.diffusion.sample.sampler import SamplingConfig, sample
from inandout.memseg.anomaly import synthesise
from inandout.memseg.config import MemSegConfig
from inandout.memseg.texture_bank import open_textures
from inandout.reporting.figures import contact_sheet, outline

HERE = Path(__file__).parent


def surfaces() -> None:
    """One row a surface, one column a kind of defect."""
    drawn = [
        draw_surface(112, 112, 100 * row + column, kind, surface)
        for row, surface in enumerate(SURFACES)
        for column, kind in enumerate(("", *KINDS))
    ]
    captions = [f"{one.surface} {one.defect or 'good'}" for one in drawn]
    save("surfaces", contact_sheet([one.image for one in drawn], captions, 1 + len(KINDS)))


def memseg() -> None:
    """Good parts of one product, the same with a MemSeg anomaly, and with the anomaly outlined."""
    textures, config = open_textures(""), MemSegConfig()
    good = [draw_surface(96, 192, seed, "", "ground", product=6).image for seed in range(8)]
    made = [synthesise(image, seed, config, textures) for seed, image in enumerate(good)]
    rows = [*good, *(one.image for one in made), *(outline(one.image, one.mask) for one in made)]
    captions = ["good"] * 8 + ["MemSeg"] * 8 + ["its mask"] * 8
    save("memseg", contact_sheet(rows, captions, 8))


def surface_diffusion() -> None:
    """What the embedded base draws: a row a prompt, the first four with nothing else said, then every material."""
    base = open_base(BaseConfig()).pipeline
    materials = ["", "", "", "", *(f"{surface} " for surface in SURFACES)]
    prompts = [f"{material}background {kind}".strip() for kind in ("", *KINDS) for material in materials]
    made = sample(base, prompts, range(len(prompts)), width=64, height=64, config=SamplingConfig().resolved("embedded"))
    images = [image for batch in made for image in batch.images]
    save("surface_diffusion", contact_sheet(images, prompts, len(materials)))


def save(name: str, sheet: ImageArray) -> None:
    """As JPEG: a README loads faster, and nothing is measured on these."""
    Image.fromarray(sheet).save(HERE / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    surfaces()
    memseg()
    surface_diffusion()
