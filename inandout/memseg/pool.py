"""Write a pool: a folder of synthetic anomalies with a manifest."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from inandout.data.config import Geometry
from inandout.data.geometry import fit_image
from inandout.data.images import read_image, write_image
from inandout.data.manifest import Sample, digests, write_manifest
from inandout.memseg.anomaly import synthesise
from inandout.memseg.config import MemSegConfig
from inandout.memseg.plan import plan
from inandout.memseg.texture_bank import open_textures


def write_pool(
    negatives: Sequence[Sample], folder: Path, *, n: int, geometry: Geometry, seed: int, config: MemSegConfig
) -> list[Sample]:
    """Write `n` synthetic positives of one size, their masks and `manifest.csv`.

    Negatives are resized before synthesis, so that an anomaly is as sharp as its background.
    """
    textures = open_textures(config.textures)
    folder = folder.resolve()
    sources = digests([sample.image for sample in negatives])
    pool: list[Sample] = []
    for number, (source, image_seed) in enumerate(tqdm(plan(len(negatives), n, seed), "memseg", disable=None)):
        background = fit_image(read_image(negatives[source].image), geometry)
        anomaly = synthesise(background, image_seed, config, textures)
        image, mask = (folder / f"{number:06d}{suffix}.png" for suffix in ("", "_mask"))
        write_image(image, anomaly.image)
        write_image(mask, anomaly.mask)
        pool.append(
            Sample(
                image=image, mask=mask, label=1, split="train", group=negatives[source].group,
                origin="memseg", seed=image_seed, sources=(sources[source],),
            )
        )  # fmt: skip
    write_manifest(pool, folder / "manifest.csv")
    return pool
