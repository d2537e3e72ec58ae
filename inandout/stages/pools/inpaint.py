"""A pool of defects that diffusion draws on real good parts, inside a mask, as DIAG does (Girella 2024)."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from diffusers import StableDiffusionPipeline
from pydantic import Field

from inandout.data.geometry import fit_image, fit_mask
from inandout.data.images import Mask, read_image, read_mask, write_image
from inandout.data.manifest import Sample, digests, fingerprint, write_manifest
from inandout.data.prepare import prepare_shot
from inandout.diffusion.base.base import Base, base_identity, kind_of_base, open_base
from inandout.diffusion.finetune.presets import PRESETS
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.sample.generate import Kept, inpaint_generator
from inandout.diffusion.sample.inpaint import Canvas
from inandout.diffusion.sample.sampler import image_seed
from inandout.errors import InputError
from inandout.memseg.config import MaskConfig
from inandout.memseg.masks import area_limits, draw_mask, find_foreground
from inandout.memseg.plan import plan
from inandout.stages.image_cache import generate
from inandout.stages.pools.pool import Pool, log_pool, open_pool, work_pool
from inandout.stages.pools.text2img import DdpmPoolConfig, adapter_for, adapter_identity, log_pool_state
from inandout.tracking import connect, run_stage

NO_ADAPTER = "none"
"""The value of `adapter` that stands for the base as it is: without any training, as DIAG draws."""


_SITE_FIELDS = {"seed", "width", "height", "fit", "masks", *MaskConfig.model_fields}
"""What decides where an image is drawn, beside the data."""


class InpaintPoolConfig(MaskConfig, DdpmPoolConfig):
    """A pool of defects drawn on good parts."""

    masks: Literal["perlin", "real"] = Field(
        "perlin",
        description="where source=inpaint draws: perlin = as MemSeg's anomalies lie; real = as real defects of the "
        "training part lie (few and full shot, with masks)",
    )

    def merging_alpha(self) -> float:
        """The resolved `alpha`."""
        return PRESETS[kind_of_base(self.base), self.shot].inpaint_alpha if self.alpha is None else self.alpha


class _Sites(NamedTuple):
    """Where each candidate is drawn."""

    config: InpaintPoolConfig
    negatives: list[Sample]
    real: list[Mask]
    """Masks (H, W) of real defects; none with Perlin masks."""

    def negative(self, number: int) -> int:
        """Index of the good part that candidate `number` is drawn on."""
        return plan(len(self.negatives), number + 1, self.config.seed)[number][0]

    def mask(self, number: int) -> Mask:
        """(H, W), never empty."""
        rng = np.random.default_rng(image_seed(self.config.seed, number))
        if self.real:
            return self.real[rng.integers(len(self.real))]
        part = fit_image(read_image(self.negatives[self.negative(number)].image), self.config)
        foreground = find_foreground(part, self.config)
        pixels = part.shape[0] * part.shape[1] if foreground is None else int(np.count_nonzero(foreground))
        limits = area_limits(pixels, self.config)
        return draw_mask(self.config.width, self.config.height, foreground, limits, rng)

    def canvas(self, numbers: range) -> Canvas:
        """Of some candidates."""
        parts = [read_image(self.negatives[self.negative(number)].image) for number in numbers]
        fitted = np.stack([fit_image(part, self.config) for part in parts])
        return Canvas(fitted, np.stack([self.mask(number) for number in numbers]))


def augment_inpaint(config: InpaintPoolConfig, samples: list[Sample] | None = None) -> Pool:
    """A pool of defects on negatives of the training part, which keep their pixels outside the masks.

    `samples` is the data set, split and with its shot; None = read it.
    """
    connect()
    samples = prepare_shot(config) if samples is None else samples
    sites = _sites(config, samples)
    adapter = NO_ADAPTER if config.adapter == NO_ADAPTER else adapter_identity(config, samples)
    inputs = {"data": fingerprint(samples), "base": base_identity(config), "adapter": adapter}
    name = f"inpaint {config.shot} alpha={config.merging_alpha():g} n={config.n_aug} seed={config.seed}"
    run = run_stage("augment", name, config, inputs, samples, lambda work: _make(config, samples, sites, work))
    return open_pool(run.info.run_id)


def _sites(config: InpaintPoolConfig, samples: Sequence[Sample]) -> _Sites:
    training = [sample for sample in samples if sample.split == "train"]
    negatives = [sample for sample in training if sample.label == 0]
    if config.masks == "perlin":
        return _Sites(config, negatives, [])
    known = [sample.mask for sample in training if sample.label == 1 and sample.mask]
    masks = [mask for mask in (fit_mask(read_mask(path), config) for path in known) if mask.any()]
    if not masks:
        raise InputError(
            f"masks = real: the training part of shot = {config.shot} has no positive with a mask that shows a defect "
            "at this size; give masks=perlin"
        )
    return _Sites(config, negatives, masks)


def _make(config: InpaintPoolConfig, samples: list[Sample], sites: _Sites, work: Path) -> None:
    base = open_base(config)
    adapter = None if config.adapter == NO_ADAPTER else adapter_for(config, samples)
    pipeline, prompts, sampling = _merged(config, base, adapter), _prompts(config, adapter), config.sampling(base.kind)
    skip = adapter.meta.clip_skip if adapter else 1
    generator = inpaint_generator(pipeline, prompts, config.seed, sites.canvas, sampling, skip)
    state = generate(inpaint_cache_key(config, adapter, samples), config.n_aug, generator, sampling.sample_batch, None, "inpaint")
    log_pool_state(state, config.merging_alpha() if adapter else None, prompts)
    folder, contents = work_pool(work), digests([sample.image for sample in sites.negatives])
    rows = [_row(one, sites, contents, prompts, base, adapter, folder) for one in state.kept]
    write_manifest(rows, folder / "manifest.csv")
    log_pool(folder, rows)


def inpaint_cache_key(config: InpaintPoolConfig, adapter: Adapter | None, samples: Sequence[Sample]) -> list[object]:
    """What a pool asks `generate` for."""
    sampling = config.sampling(kind_of_base(config.base))
    return [
        "inpaint", base_identity(config), adapter and adapter.fingerprint, config.merging_alpha(), _prompts(config, adapter),
        fingerprint(samples), sampling.model_dump(), config.model_dump(mode="json", include=_SITE_FIELDS),
    ]  # fmt: skip


def _merged(config: InpaintPoolConfig, base: Base, adapter: Adapter | None) -> StableDiffusionPipeline:
    return merge(base.pipeline, base.fingerprint, adapter, config.merging_alpha()) if adapter else base.pipeline


def _prompts(config: InpaintPoolConfig, adapter: Adapter | None) -> list[str]:
    if adapter is None and not config.prompts.strip(" |"):
        raise InputError("adapter = none: there is no prompt that the base was fine-tuned with; give prompts")
    return config.prompt_list(adapter.meta.instance_prompt if adapter else "")


def _row(
    one: Kept,
    sites: _Sites,
    contents: Sequence[str],
    prompts: Sequence[str],
    base: Base,
    adapter: Adapter | None,
    folder: Path,
) -> Sample:
    """The manifest's row of an image, which is copied to the pool, with its mask beside it."""
    image = Path(shutil.copy(one.path, folder))
    mask = folder / f"{image.stem}_mask.png"
    write_image(mask, sites.mask(one.number))
    negative = sites.negative(one.number)
    learned = [source for source in (adapter.meta.sources if adapter else ()) if source != contents[negative]]
    return Sample(
        image=image, mask=mask, label=1, split="train", group=sites.negatives[negative].group, origin="inpaint",
        seed=image_seed(sites.config.seed, one.number), prompt=prompts[one.number % len(prompts)],
        alpha=sites.config.merging_alpha() if adapter else None, adapter=adapter.fingerprint if adapter else "",
        base=base.fingerprint, sources=(contents[negative], *learned),
    )  # fmt: skip
