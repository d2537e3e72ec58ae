"""Synthetic negatives: good parts with generator artifacts, so that the artifacts do not reveal the label."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np

from inandout.data.config import ShotConfig
from inandout.data.geometry import fit_image, fit_mask
from inandout.data.images import ImageArray, Mask, read_image, read_mask, write_image
from inandout.data.manifest import Sample, digests, fingerprint, write_manifest
from inandout.data.prepare import prepare_shot
from inandout.diffusion.base.base import open_base
from inandout.diffusion.base.identity import base_identity
from inandout.diffusion.lora.safetensors_io import load_adapter
from inandout.diffusion.sample.inpaint import Canvas, composite
from inandout.diffusion.sample.vae_roundtrip import round_trip
from inandout.errors import InputError
from inandout.fingerprints import Identity
from inandout.memseg.plan import plan
from inandout.stages.config import FinetuneConfig
from inandout.stages.finetune import find_adapter
from inandout.stages.pools.config import DdpmPoolConfig, RoundTripConfig
from inandout.stages.pools.drawing_config import DRAWING_INPUTS, read_drawing_config
from inandout.stages.pools.pool import Pool, log_pool, open_pool, work_pool
from inandout.stages.pools.text2img import (
    draw_ddpm,
    drawing_inputs,
    open_diffusion_setup,
    resolve,
)
from inandout.tracking.runs import run_stage
from inandout.tracking.store import connect


class _RoundTrip(NamedTuple):
    """A good part, and the mask in which the VAE output replaces it."""

    negative: int
    mask: Mask | None
    """(H, W); None = everywhere."""


def send_through_vae(
    config: RoundTripConfig, samples: Sequence[Sample], positives: Sequence[Sample], source: str
) -> Pool:  # fmt: skip
    """Encode and decode `n_aug` negatives of the training part by the VAE, one for each diffusion image.

    The counterpart of a whole image is a whole good part. The counterpart of an inpainted defect is the same good part,
    changed inside the same mask only. Grey parts stay grey.

    Args:
        config: options of the pool.
        samples: the split dataset.
        positives: `n_aug` diffusion images.
        source: identity of the positives, see `source_identity`.

    Raises:
        InputError: the training part has no negatives, or another base drew the positives.
    """
    connect()
    identity = _round_trip_identity(config, samples, source)
    name = f"negatives roundtrip n={config.n_aug:03d} seed={config.seed:02d}"
    run = run_stage(
        identity, name, config.data.data, samples, lambda work: _make_trips(config, samples, positives, work)
    )
    return open_pool(run.info.run_id)


def round_trip_fingerprint(config: RoundTripConfig, samples: Sequence[Sample], source: str) -> str:
    """Return the fingerprint of the pool of `send_through_vae` without generating it."""
    return _round_trip_identity(config, samples, source).fingerprint


def _round_trip_identity(config: RoundTripConfig, samples: Sequence[Sample], source: str) -> Identity:
    inputs = {"data": fingerprint(samples), "base": base_identity(config.base), "positives": source}
    return Identity("negatives", __name__, config, inputs, ignored=("data", "base", "base_config"))


def source_identity(positives: Sequence[Sample]) -> str:
    """Return the part of the positives that round trips depend on: their bases and, if inpainted, their content."""
    local = any(sample.origin == "inpaint" for sample in positives)
    return " ".join([*sorted({sample.base for sample in positives}), *([fingerprint(positives)] if local else [])])


def _make_trips(
    config: RoundTripConfig, samples: Sequence[Sample], positives: Sequence[Sample], work: Path
) -> None:  # fmt: skip
    hardware = config.hardware.open()
    mlflow.set_tags(hardware.tags())
    base, folder = open_base(config.base, hardware), work_pool(work)
    if not {sample.base for sample in positives} <= {base.fingerprint, ""}:
        raise InputError(
            f"base = {config.base.base}: another base, with another VAE, drew the diffusion images of the mix; "
            "give base=<that base>"
        )
    negatives = [sample for sample in samples if (sample.split, sample.label) == ("train", 0)]
    contents = digests([sample.image for sample in negatives])
    rows = []
    for number, trip in enumerate(_plan_round_trips(config, contents, positives)):
        negative, path = negatives[trip.negative], folder / f"{number:06d}.png"
        before = fit_image(read_image(negative.image), config.geometry)
        write_image(path, _replace_inside(before, round_trip(base.pipeline, before[None])[0], trip.mask))
        rows.append(
            Sample(
                image=path, label=0, split="train", group=negative.group, origin="roundtrip", base=base.fingerprint,
                sources=(contents[trip.negative],),
            )
        )  # fmt: skip
    write_manifest(rows, folder / "manifest.csv")
    log_pool(folder, rows, samples, config.geometry)


def _plan_round_trips(
    config: RoundTripConfig, contents: Sequence[str], positives: Sequence[Sample]
) -> list[_RoundTrip]:
    """Return one round trip for each positive."""
    index = {content: number for number, content in enumerate(contents)}
    planned = [negative for negative, _ in plan(len(contents), len(positives), config.seed)]
    return [
        _RoundTrip(index[row.sources[0]], fit_mask(read_mask(row.mask), config.geometry))
        if row.origin == "inpaint" and row.mask and row.sources and row.sources[0] in index
        else _RoundTrip(other, None)
        for row, other in zip(positives, planned, strict=True)
    ]


def _replace_inside(before: ImageArray, after: ImageArray, mask: Mask | None) -> ImageArray:
    """Return `after` inside the mask and `before` outside it, with the soft edge of an inpainted defect."""
    if mask is None or not mask.any():
        return after
    blended: ImageArray = composite(Canvas(before[None], mask[None]), np.asarray(after)[None])[0]
    return blended


def good_images(config: DdpmPoolConfig, samples: list[Sample] | None = None) -> Pool:
    """Generate a pool of diffusion images of good parts, labelled as negatives.

    Args:
        config: from `good_pool_config`.
        samples: the split dataset after the shot; None = read it.
    """
    connect()
    config = resolve(config)
    samples = prepare_shot(config.data, config.scenario, config.seed) if samples is None else samples
    name = f"negatives generated alpha={config.drawing.alpha:g} n={config.n_aug:03d} seed={config.seed:02d}"
    run = run_stage(
        _good_identity(config, samples), name, config.data.data, samples, lambda work: _make_good(config, samples, work)
    )
    return open_pool(run.info.run_id)


def good_fingerprint(config: DdpmPoolConfig, samples: Sequence[Sample]) -> str:
    """Return the fingerprint of the pool of `good_images` without generating it."""
    return _good_identity(resolve(config), samples).fingerprint


def _good_identity(config: DdpmPoolConfig, samples: Sequence[Sample]) -> Identity:
    return Identity("negatives", __name__, config, drawing_inputs(config, samples), ignored=DRAWING_INPUTS)


def _make_good(config: DdpmPoolConfig, samples: list[Sample], work: Path) -> None:
    folder = work_pool(work)
    rows = draw_ddpm(open_diffusion_setup(config, samples), samples, folder, config.seed, label=0)
    log_pool(folder, rows, samples, config.geometry)


def good_pool_config(config: DdpmPoolConfig, given: str) -> DdpmPoolConfig:
    """Return the configuration of good parts to pair with diffusion images of defects.

    The prompt is the instance prompt without a word for a defect. Seeds are equal to those of the defects, so that each
    defect image has a counterpart. The instance prompt draws good parts only if the adapter was fine-tuned on good
    parts, as with zero shots; an adapter fine-tuned on defects draws defects. The class prompt does not help: prior
    preservation keeps it at surfaces of other products, which a classifier separates from the product without
    generator artifacts, and defects leak into it from the instance prompt, which contains its words. With few and full
    shot a second adapter is therefore fine-tuned on good parts.

    Args:
        config: configuration of the defects, used if `given` is empty.
        given: run id or folder of an existing pool of defects; empty = none.

    Raises:
        InputError: the pool does not record how it was drawn, or its adapter was not fine-tuned on good parts.
    """
    if not given:
        prompts = FinetuneConfig().instance_prompt
        if config.scenario.shot == "zero":
            return config.with_drawing(prompts=prompts)
        return config.with_drawing(prompts=prompts, alpha=None).model_copy(update={"scenario": ShotConfig(shot="zero")})
    pool = None if Path(given).is_dir() else read_drawing_config(given)
    if pool is None:
        raise InputError(
            f"negatives = generated: pool {given} does not record the prompt and adapter of whole images; give "
            "negatives=roundtrip, or the run id of augment with source=ddpm"
        )
    meta = load_adapter(find_adapter(pool.drawing.adapter)).meta
    if pool.scenario.shot != "zero" or not meta.instance_prompt:
        raise InputError(
            f"negatives = generated: the adapter of pool {given} was not fine-tuned on good parts (shot = "
            f"{pool.scenario.shot}), so it cannot draw them; give negatives=roundtrip, or remove ddpm_pool"
        )
    good = pool.with_drawing(prompts=meta.instance_prompt)
    return good.model_copy(update={"n_aug": config.n_aug, "fresh": False})
