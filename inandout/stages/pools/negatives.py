"""Synthetic negatives: the generator's fingerprint without a defect, so that it says nothing of the label."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from inandout.data.geometry import Geometry, fit_image, fit_mask
from inandout.data.images import ImageArray, Mask, read_image, read_mask, write_image
from inandout.data.manifest import Sample, digests, fingerprint, write_manifest
from inandout.data.prepare import DataConfig, Seed, ShotConfig, prepare_shot
from inandout.diffusion.base.base import BaseConfig, base_identity, open_base
from inandout.diffusion.lora.safetensors_io import load_adapter
from inandout.diffusion.sample.inpaint import Canvas, composite
from inandout.diffusion.sample.vae_roundtrip import round_trip
from inandout.errors import InputError
from inandout.fingerprints import Identity
from inandout.memseg.plan import plan
from inandout.options import Fresh, StageConfig
from inandout.stages.finetune import FinetuneConfig, find_adapter
from inandout.stages.pools.pool import Pool, PoolSize, log_pool, open_pool, work_pool
from inandout.stages.pools.text2img import (
    DRAWING_INPUTS,
    DdpmPoolConfig,
    draw_ddpm,
    drawing_inputs,
    drawn_with,
    open_diffusion_setup,
    resolve,
)
from inandout.tracking.runs import run_stage
from inandout.tracking.store import connect

Negatives = Literal["none", "roundtrip", "generated"]


class RoundTripConfig(StageConfig):
    """Real good parts through the VAE of the base."""

    data: DataConfig = DataConfig()
    geometry: Geometry = Geometry()
    base: BaseConfig = BaseConfig()
    seed: Seed = 0
    n_aug: PoolSize = 60
    fresh: Fresh = False


class _Trip(NamedTuple):
    """A good part, and where the VAE touches it."""

    negative: int
    mask: Mask | None
    """(H, W); None = everywhere."""


def send_through_vae(
    config: RoundTripConfig, samples: Sequence[Sample], positives: Sequence[Sample], source: str
) -> Pool:  # fmt: skip
    """`n_aug` negatives of the training part through the VAE, one to stand against each diffusion image.

    Against a whole image it is a whole one; against a defect that was drawn on a good part, that very part, touched
    inside the same mask alone. Without colour where the part has none.

    Args:
        config: of what, and whose VAE.
        samples: the data set, split.
        positives: `n_aug` diffusion images.
        source: identity of what of the positives decides, see `source_of`.

    Raises:
        InputError: the training part has no negatives, or the images are of another base.
    """
    connect()
    identity = _round_trip_identity(config, samples, source)
    name = f"round trip n={config.n_aug} seed={config.seed}"
    run = run_stage(
        identity, name, config.data.data, samples, lambda work: _make_trips(config, samples, positives, work)
    )
    return open_pool(run.info.run_id)


def round_trip_fingerprint(config: RoundTripConfig, samples: Sequence[Sample], source: str) -> str:
    """Identity of the pool that `send_through_vae` gives, told without making it."""
    return _round_trip_identity(config, samples, source).fingerprint


def _round_trip_identity(config: RoundTripConfig, samples: Sequence[Sample], source: str) -> Identity:
    inputs = {"data": fingerprint(samples), "base": base_identity(config.base), "positives": source}
    return Identity("negatives", __name__, config, inputs, ignored=("data", "base", "base_config"))


def source_of(positives: Sequence[Sample]) -> str:
    """What decides of the positives of a given pool: their bases and, where they were drawn on good parts, all."""
    local = any(sample.origin == "inpaint" for sample in positives)
    return " ".join([*sorted({sample.base for sample in positives}), *([fingerprint(positives)] if local else [])])


def _make_trips(
    config: RoundTripConfig, samples: Sequence[Sample], positives: Sequence[Sample], work: Path
) -> None:  # fmt: skip
    base, folder = open_base(config.base), work_pool(work)
    if not {sample.base for sample in positives} <= {base.fingerprint, ""}:
        raise InputError(
            f"base = {config.base.base}: the diffusion images of the mix were drawn with another one, whose VAE "
            "leaves another fingerprint; give base=<that one>"
        )
    negatives = [sample for sample in samples if (sample.split, sample.label) == ("train", 0)]
    contents = digests([sample.image for sample in negatives])
    rows = []
    for number, trip in enumerate(_trips(config, contents, positives)):
        negative, path = negatives[trip.negative], folder / f"{number:06d}.png"
        before = fit_image(read_image(negative.image), config.geometry)
        write_image(path, _touched(before, round_trip(base.pipeline, before[None])[0], trip.mask))
        rows.append(
            Sample(
                image=path, label=0, split="train", group=negative.group, origin="roundtrip", base=base.fingerprint,
                sources=(contents[trip.negative],),
            )
        )  # fmt: skip
    write_manifest(rows, folder / "manifest.csv")
    log_pool(folder, rows)


def _trips(config: RoundTripConfig, contents: Sequence[str], positives: Sequence[Sample]) -> list[_Trip]:
    """One for each positive."""
    place = {content: number for number, content in enumerate(contents)}
    planned = [negative for negative, _ in plan(len(contents), len(positives), config.seed)]
    return [
        _Trip(place[row.sources[0]], fit_mask(read_mask(row.mask), config.geometry))
        if row.origin == "inpaint" and row.mask and row.sources and row.sources[0] in place
        else _Trip(other, None)
        for row, other in zip(positives, planned, strict=True)
    ]


def _touched(before: ImageArray, after: ImageArray, mask: Mask | None) -> ImageArray:
    """`after` inside the mask, with the soft edge that a drawn defect has."""
    if mask is None or not mask.any():
        return after
    touched: ImageArray = composite(Canvas(before[None], mask[None]), np.asarray(after)[None])[0]
    return touched


def good_images(config: DdpmPoolConfig, samples: list[Sample] | None = None) -> Pool:
    """Diffusion images of good parts, labelled as negatives.

    Args:
        config: of `good_pool_config`.
        samples: the data set, split and with its shot; None = read it.
    """
    connect()
    config = resolve(config)
    samples = prepare_shot(config.data, config.scenario, config.seed) if samples is None else samples
    name = f"good images alpha={config.drawing.alpha:g} n={config.n_aug} seed={config.seed}"
    run = run_stage(
        _good_identity(config, samples), name, config.data.data, samples, lambda work: _make_good(config, samples, work)
    )
    return open_pool(run.info.run_id)


def good_fingerprint(config: DdpmPoolConfig, samples: Sequence[Sample]) -> str:
    """Identity of the pool that `good_images` gives, told without drawing it."""
    return _good_identity(resolve(config), samples).fingerprint


def _good_identity(config: DdpmPoolConfig, samples: Sequence[Sample]) -> Identity:
    return Identity("negatives", __name__, config, drawing_inputs(config, samples), ignored=DRAWING_INPUTS)


def _make_good(config: DdpmPoolConfig, samples: list[Sample], work: Path) -> None:
    folder = work_pool(work)
    log_pool(folder, draw_ddpm(open_diffusion_setup(config, samples), samples, folder, config.seed, label=0))


def good_pool_config(config: DdpmPoolConfig, given: str) -> DdpmPoolConfig:
    """How good parts are drawn, to stand against diffusion images of defects.

    The prompt is the adapter's own, without a word for a defect, and the seeds are those of the defects, so an image
    has a twin. It means a good part only to an adapter that was fine-tuned on good parts, as that of zero shot is. To
    one that learned defects it means those. The class prompt is no way out: prior preservation ties it to what the base
    drew before, surfaces of other products, which are told from the product without looking for the fingerprint; and
    what leaks into it from the instance prompt, which holds its words, is defects. So with few and full shot an adapter
    of good parts is fine-tuned beside the one of defects.

    Args:
        config: how the defects are drawn where no pool of them is given.
        given: run or folder of the pool of defects that is given; empty = none.

    Raises:
        InputError: it is not known how the pool was drawn, or its adapter did not learn good parts.
    """
    if not given:
        prompts = FinetuneConfig().instance_prompt
        if config.scenario.shot == "zero":
            return config.with_drawing(prompts=prompts)
        return config.with_drawing(prompts=prompts, alpha=None).model_copy(update={"scenario": ShotConfig(shot="zero")})
    drawn = None if Path(given).is_dir() else drawn_with(given)
    if drawn is None:
        raise InputError(
            f"negatives = generated: pool {given} does not say which prompt and adapter whole images were drawn "
            "with; give negatives=roundtrip, or the run id of augment with source=ddpm"
        )
    meta = load_adapter(find_adapter(drawn.drawing.adapter)).meta
    if drawn.scenario.shot != "zero" or not meta.instance_prompt:
        raise InputError(
            f"negatives = generated: the adapter of pool {given} was not fine-tuned on good parts (shot = "
            f"{drawn.scenario.shot}), so it cannot draw them; give negatives=roundtrip, or no ddpm_pool"
        )
    asked = drawn.with_drawing(prompts=meta.instance_prompt)
    return asked.model_copy(update={"n_aug": config.n_aug, "fresh": False})
