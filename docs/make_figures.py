"""Draw the images of the documentation from the package itself.

python docs/make_figures.py
"""

from pathlib import Path

from PIL import Image

from inandout.data.images import ImageArray
from inandout.data.surfaces import KINDS, SURFACES, draw_surface
from inandout.diffusion.base.base import open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.sampler import sample
from inandout.memseg.anomaly import synthesise
from inandout.memseg.config import MemSegConfig
from inandout.memseg.texture_bank import open_textures
from inandout.reporting.figures import contact_sheet, outline

HERE = Path(__file__).parent


def surfaces() -> None:
    """Save a contact sheet with one row per surface and one column per kind of defect."""
    drawn = [
        draw_surface(112, 112, 100 * row + column, kind, surface)
        for row, surface in enumerate(SURFACES)
        for column, kind in enumerate(("", *KINDS))
    ]
    captions = [f"{surface.surface} {surface.defect or 'good'}" for surface in drawn]
    save("surfaces", contact_sheet([surface.image for surface in drawn], captions, 1 + len(KINDS)))


def memseg() -> None:
    """Save good parts of one product (row 1), with a MemSeg anomaly (row 2), and with its outline (row 3)."""
    textures, config = open_textures(""), MemSegConfig()
    good = [draw_surface(96, 192, seed, "", "ground", product=6).image for seed in range(8)]
    anomalies = [synthesise(image, seed, config, textures) for seed, image in enumerate(good)]
    rows = [*good, *(each.image for each in anomalies), *(outline(each.image, each.mask) for each in anomalies)]
    captions = ["good"] * 8 + ["MemSeg"] * 8 + ["its mask"] * 8
    save("memseg", contact_sheet(rows, captions, 8))


def surface_diffusion() -> None:
    """Save images of the embedded base: one row per defect, four without a material, then one per material."""
    base = open_base(BaseConfig()).pipeline
    materials = ["", "", "", "", *(f"{surface} " for surface in SURFACES)]
    prompts = [f"{material}background {kind}".strip() for kind in ("", *KINDS) for material in materials]
    config = SamplingConfig().resolved("embedded")
    batches = sample(base, prompts, range(len(prompts)), width=64, height=64, config=config)
    images = [image for batch in batches for image in batch.images]
    save("surface_diffusion", contact_sheet(images, prompts, len(materials)))


def save(name: str, sheet: ImageArray) -> None:
    """Save a contact sheet as JPEG, so that the page loads fast."""
    Image.fromarray(sheet).save(HERE / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    surfaces()
    memseg()
    surface_diffusion()
