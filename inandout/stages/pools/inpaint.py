"""Pools of defects inpainted on real good parts, inside a mask, as in DIAG (Girella 2024)."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import numpy.typing as npt

from inandout.data.geometry import fit_image, fit_mask
from inandout.data.images import ImageArray, Mask, read_image, read_mask, write_image
from inandout.data.manifest import Sample, digests, fingerprint, write_manifest
from inandout.data.prepare import prepare, prepare_shot
from inandout.diffusion.base.base import Base
from inandout.diffusion.base.identity import base_identity
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.pipeline import Pipeline
from inandout.diffusion.sample.generate import Kept, inpaint_generator, mask_generator
from inandout.diffusion.sample.inpaint import Canvas
from inandout.diffusion.sample.sampler import image_seed
from inandout.diffusion.sample.visible_change import find_changed
from inandout.diffusion.sample.window import Window, inset, own_size, place_mask, random_window, window_around
from inandout.errors import InputError
from inandout.fingerprints import Identity, computed_by
from inandout.hardware import Hardware
from inandout.memseg.masks import area_limits, draw_mask, find_foreground
from inandout.memseg.plan import negative_of
from inandout.options import known
from inandout.seeds import PoolStream, generator
from inandout.stages.finetune import of_kind
from inandout.stages.image_cache import generate
from inandout.stages.pools.config import NO_ADAPTER, InpaintPoolConfig
from inandout.stages.pools.drawing_config import DRAWING_INPUTS
from inandout.stages.pools.pool import Pool, log_pool, open_pool, work_pool
from inandout.stages.pools.text2img import (
    adapter_for,
    composition,
    drawing_inputs,
    log_pool_state,
    open_on_cpu,
    resolve,
)
from inandout.stages.resolved_base import open_resolved_base
from inandout.tracking.runs import run_stage
from inandout.tracking.store import connect


class _Sites(NamedTuple):
    """Good part and mask of each candidate."""

    config: InpaintPoolConfig
    negatives: list[Sample]
    real: list[Mask]
    """Masks (H, W) of real defects; empty with other masks."""
    drawn: Callable[[range], npt.NDArray[np.bool_]] | None = None
    """Draws the masks (N, H, W) of candidates, if masks=drawn."""

    def negative(self, number: int) -> int:
        """Return the index of the good part of candidate `number`."""
        return negative_of(len(self.negatives), number, self.config.seed)

    def masks(self, numbers: range) -> npt.NDArray[np.bool_]:
        """Return the masks (N, H, W) of candidates; none is empty."""
        if self.drawn is None:
            masks = list(map(self._given, numbers))
        else:
            masks = [self._on_part(mask, number) for mask, number in zip(self.drawn(numbers), numbers, strict=True)]
        if self.config.window is None:
            return np.stack(masks)
        return np.stack([inset(mask, self.window(number)) for mask, number in zip(masks, numbers, strict=True)])

    def mask(self, number: int, image: ImageArray) -> Mask:
        """Return the mask (H, W) of an image (H, W, 3): the given one, or where it differs visibly from its part."""
        if self.drawn is None:
            return self.masks(range(number, number + 1))[0]
        return find_changed(image, self.part(number))

    def _on_part(self, mask: Mask, number: int) -> Mask:
        """Return a drawn mask (S, S) in the window of a part, on the object."""
        foreground, window = find_foreground(self.part(number), self.config.mask), self.window(number)
        inside = place_mask(np.ones((1, 1), bool), window, self._shape())
        return _on_object(place_mask(mask, window, self._shape()), None if foreground is None else foreground & inside)

    def _given(self, number: int) -> Mask:
        window = self.window(number)
        if self.real:
            return place_mask(self._real(number)[window.slices()], window, self._shape())
        part = self.part(number)[window.slices()]
        foreground = find_foreground(part, self.config.mask)
        pixels = part.shape[0] * part.shape[1] if foreground is None else int(np.count_nonzero(foreground))
        limits = area_limits(pixels, self.config.mask)
        mask = draw_mask(part.shape[1], part.shape[0], foreground, limits, self._rng(number))
        return place_mask(mask, window, self._shape())

    def _real(self, number: int) -> Mask:
        return self.real[self._rng(number).integers(len(self.real))]

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng(image_seed(self.config.seed, number))

    def part(self, number: int) -> ImageArray:
        """Return the good part (H, W, 3) of candidate `number`."""
        return fit_image(read_image(self.negatives[self.negative(number)].image), self.config.geometry)

    def _shape(self) -> tuple[int, int]:
        return self.config.geometry.height, self.config.geometry.width

    def window(self, number: int) -> Window:
        """Return the window of candidate `number`; the whole image without option `window`."""
        side, (height, width) = self.config.window, self._shape()
        if side is None:
            return Window(0, 0, width, height)
        if self.real:
            return window_around(self._real(number), side)
        rng = generator(self.config.seed, PoolStream.WINDOWS, number)
        return random_window((height, width), side, find_foreground(self.part(number), self.config.mask), rng)

    def canvas(self, numbers: range) -> Canvas:
        """Return good parts and masks of candidates."""
        return Canvas(np.stack(list(map(self.part, numbers))), self.masks(numbers))


def _on_object(mask: Mask, foreground: Mask | None) -> Mask:
    """Return the part of a mask (H, W) on the object; the whole object if no pixel of the mask is on it."""
    if foreground is None:
        return mask
    inside = mask & foreground
    return inside if inside.any() else foreground


def augment_inpaint(config: InpaintPoolConfig, samples: list[Sample] | None = None) -> Pool:
    """Generate a pool of defects on negatives of the training part; pixels outside the masks do not change.

    Args:
        config: options of the pool.
        samples: the split dataset after the shot; None = read it.
    """
    connect()
    config = _resolve(config)
    samples = prepare_shot(config.data, config.scenario, config.seed) if samples is None else samples
    sites = _sites(config, samples)
    merged = "no adapter" if config.drawing.alpha is None else f"alpha={config.drawing.alpha:g}"
    name = f"augment inpaint {config.scenario.shot} {merged} n={config.n_aug:03d} seed={config.seed:02d}"
    run = run_stage(
        _identity(config, samples), name, config.data.data, samples, lambda work: _make(config, samples, sites, work)
    )
    return open_pool(run.info.run_id)


def inpaint_fingerprint(config: InpaintPoolConfig, samples: Sequence[Sample]) -> str:
    """Return the fingerprint of the pool of `augment_inpaint` without generating it."""
    return _identity(_resolve(config), samples).fingerprint


def _identity(config: InpaintPoolConfig, samples: Sequence[Sample]) -> Identity:
    if config.drawing.adapter == NO_ADAPTER:
        inputs = {"data": fingerprint(samples), "base": base_identity(config.base), "adapter": NO_ADAPTER}
    else:
        inputs = drawing_inputs(config, samples)
    inputs |= _withheld(config)
    return Identity("augment", __name__, config, inputs, ignored=DRAWING_INPUTS)


def _withheld(config: InpaintPoolConfig) -> dict[str, str]:
    """Return the fingerprint of the dataset with the defects that the shot withholds, if their masks are used."""
    return {"all": fingerprint(prepare(config.data, config.seed))} if config.masks == "all" else {}


def _resolve(config: InpaintPoolConfig) -> InpaintPoolConfig:
    if config.drawing.adapter != NO_ADAPTER:
        return resolve(config)
    if not config.drawing.prompt_list():
        raise InputError("adapter = none: there is no instance prompt to use; give prompts")
    return config.resolved().with_prompts("")


def _sites(config: InpaintPoolConfig, samples: Sequence[Sample]) -> _Sites:
    training = [sample for sample in samples if sample.split == "train"]
    negatives = [sample for sample in training if sample.label == 0]
    if config.masks not in ("real", "all"):
        return _Sites(config, negatives, [])
    if config.masks == "all":
        training = [sample for sample in prepare(config.data, config.seed) if sample.split == "train"]
    positives = [sample for sample in training if sample.label == 1]
    chosen = of_kind(positives, config.kind) if config.kind else positives
    paths = [sample.mask for sample in chosen if sample.mask]
    masks = [mask for mask in (fit_mask(read_mask(path), config.geometry) for path in paths) if mask.any()]
    if not masks:
        positive = "positive" + f" of kind {config.kind}" * bool(config.kind)
        fix = "leave kind out" if config.kind else "give masks=perlin"
        raise InputError(
            f"masks = {config.masks}: the training part of shot = {config.scenario.shot} has no {positive} with a mask "
            f"that is non-empty at this size; {fix}"
        )
    return _Sites(config, negatives, masks)


def _make(config: InpaintPoolConfig, samples: list[Sample], sites: _Sites, work: Path) -> None:
    adapter = None if config.drawing.adapter == NO_ADAPTER else adapter_for(config, samples)
    hardware = config.hardware.open()
    mlflow.set_tags(hardware.tags())
    base = open_on_cpu(config.base) if adapter else open_resolved_base(config.base, hardware)
    pipeline, prompts, sampling = (
        _merged(config, base, adapter, hardware),
        config.drawing.prompt_list(),
        config.sampling,
    )
    skip = adapter.meta.clip_skip if adapter else 1
    composed_of = composition(config.drawing, base, adapter, hardware) if adapter else None
    side = own_size(base.pipeline) if config.window else 0
    if config.masks == "drawn":
        size = (side, side) if config.window else (config.geometry.width, config.geometry.height)
        drawn = mask_generator(pipeline, prompts, config.seed, size, sampling, skip, known(composed_of))
        sites = sites._replace(drawn=drawn)
    windows_of = (lambda numbers: list(map(sites.window, numbers))) if config.window else None
    generator = inpaint_generator(
        pipeline, prompts, config.seed, sites.canvas, sampling, skip, composed_of, windows_of, side
    )
    state = generate(
        inpaint_cache_key(config, adapter, samples), config.n_aug, generator, sampling.sample_batch, None, "inpaint"
    )
    log_pool_state(state)
    folder, contents = work_pool(work), digests([sample.image for sample in sites.negatives])
    rows = [_row(image, sites, contents, prompts, base, adapter, folder) for image in state.kept]
    write_manifest(rows, folder / "manifest.csv")
    log_pool(folder, rows, samples, config.geometry)


def inpaint_cache_key(config: InpaintPoolConfig, adapter: Adapter | None, samples: Sequence[Sample]) -> list[object]:
    """Return the cache key of the images of a pool; `config` is resolved."""
    return [
        "inpaint", base_identity(config.base), adapter and adapter.fingerprint, config.drawing.alpha,
        config.drawing.guidance_mode, config.hardware.precision,
        config.drawing.prompt_list(), fingerprint(samples), config.sampling.model_dump(), config.seed,
        config.geometry.model_dump(), config.masks, _withheld(config),
        config.mask.model_dump(), config.window, config.kind, computed_by(__name__),
    ]  # fmt: skip


def _merged(config: InpaintPoolConfig, base: Base, adapter: Adapter | None, hardware: Hardware) -> Pipeline:
    if adapter is None:
        return base.pipeline
    return merge(base.pipeline, base.fingerprint, adapter, known(config.drawing.alpha), hardware)


def _row(
    generated: Kept,
    sites: _Sites,
    contents: Sequence[str],
    prompts: Sequence[str],
    base: Base,
    adapter: Adapter | None,
    folder: Path,
) -> Sample:
    """Copy an image and its mask to the pool; return its manifest row."""
    image = Path(shutil.copy(generated.path, folder))
    mask = folder / f"{image.stem}_mask.png"
    write_image(mask, sites.mask(generated.number, read_image(image)))
    negative = sites.negative(generated.number)
    learned = [source for source in (adapter.meta.sources if adapter else ()) if source != contents[negative]]
    return Sample(
        image=image, mask=mask, label=1, defect=sites.config.kind, split="train",
        group=sites.negatives[negative].group, origin="inpaint",
        seed=image_seed(sites.config.seed, generated.number), prompt=prompts[generated.number % len(prompts)],
        alpha=sites.config.drawing.alpha, adapter=adapter.fingerprint if adapter else "",
        base=base.fingerprint, sources=(contents[negative], *learned),
    )  # fmt: skip
