"""Pools of whole images from a fine-tuned diffusion model (paper, sections 3 and 4)."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import mlflow

from inandout.data.colour import is_grey, without_colour
from inandout.data.geometry import fit_image
from inandout.data.images import ImageArray, read_image
from inandout.data.manifest import Sample, digests, fingerprint, write_manifest
from inandout.data.prepare import prepare_shot
from inandout.diffusion.base.base import Base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.base.identity import base_identity
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.lora.safetensors_io import load_adapter
from inandout.diffusion.pipeline import Pipeline, rebuild
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.generate import PoolState, grey_generator, text2img_generator
from inandout.diffusion.sample.guidance import Composition
from inandout.diffusion.sample.sampler import image_seed, sample
from inandout.errors import InputError
from inandout.fingerprints import Identity, computed_by
from inandout.hardware import Hardware, HardwareConfig
from inandout.options import known
from inandout.reporting.figures import contact_sheet
from inandout.stages.finetune import find_adapter, finetune, finetune_fingerprint
from inandout.stages.image_cache import generate
from inandout.stages.pools.config import DdpmConfig, DdpmPoolConfig, DrawingConfig, finetune_config
from inandout.stages.pools.drawing_config import DRAWING_INPUTS, DRAWN_WITH
from inandout.stages.pools.pool import Pool, log_pool, open_pool, work_pool
from inandout.stages.resolved_base import open_resolved_base
from inandout.tracking.runs import run_stage
from inandout.tracking.store import connect

STRIP = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Values of alpha on the strip of the first image of a pool."""


AnyDdpmConfig = TypeVar("AnyDdpmConfig", bound=DdpmConfig)


def resolve(config: AnyDdpmConfig) -> AnyDdpmConfig:
    """Return `config.resolved()`, with the prompts of the adapter if one is given."""
    resolved = config.resolved()
    given = resolved.drawing.adapter
    return resolved.with_prompts(_given_adapter(resolved).meta.instance_prompt) if given else resolved


def augment_ddpm(config: DdpmPoolConfig, samples: list[Sample] | None = None) -> Pool:
    """Generate a pool of images from the base merged with an adapter; fine-tune the adapter first if none is given.

    Args:
        config: options of the pool.
        samples: the split dataset after the shot; None = read it and split it by the seed of the pool.
    """
    connect()
    config = resolve(config)
    _refuse_unknown_sources(config)
    samples = prepare_shot(config.data, config.scenario, config.seed) if samples is None else samples
    drawn = f"{config.scenario.shot} alpha={config.drawing.alpha:g} n={config.n_aug:03d}"
    name = f"augment ddpm {drawn} seed={config.seed:02d}"
    run = run_stage(
        _identity(config, samples), name, config.data.data, samples, lambda work: _make_ddpm(config, samples, work)
    )
    return open_pool(run.info.run_id)


def _refuse_unknown_sources(config: DdpmPoolConfig) -> None:
    """Raise an InputError before drawing if `classify` would refuse the images."""
    if config.drawing.adapter and not _given_adapter(config).meta.sources:
        raise InputError(
            f"adapter = {config.drawing.adapter}: its training images are unknown, as in files of other programs, so "
            "`classify` could not exclude test images and would refuse the pool; give source=inpaint, or an adapter "
            "of finetune"
        )


def ddpm_fingerprint(config: DdpmPoolConfig, samples: Sequence[Sample]) -> str:
    """Return the fingerprint of the pool of `augment_ddpm` without generating it."""
    return _identity(resolve(config), samples).fingerprint


def _identity(config: DdpmPoolConfig, samples: Sequence[Sample]) -> Identity:
    return Identity("augment", __name__, config, drawing_inputs(config, samples), ignored=DRAWING_INPUTS)


def drawing_inputs(config: DdpmConfig, samples: Sequence[Sample]) -> dict[str, str]:
    """Return fingerprints of dataset, base and adapter."""
    base, adapter = base_identity(config.base), adapter_identity(config, samples)
    return {"data": fingerprint(samples), "base": base, "adapter": adapter}


def adapter_identity(config: DdpmConfig, samples: Sequence[Sample]) -> str:
    """Return the fingerprint of the adapter, which need not exist yet."""
    if config.drawing.adapter:
        return _given_adapter(config).fingerprint
    return finetune_fingerprint(finetune_config(config), samples)


def adapter_for(config: DdpmConfig, samples: list[Sample] | None = None) -> Adapter:
    """Load the adapter; fine-tune it on `samples` first if none is given."""
    if config.drawing.adapter:
        return _given_adapter(config)
    return load_adapter(finetune(finetune_config(config), samples).adapter)


def _given_adapter(config: DdpmConfig) -> Adapter:
    adapter, shot = load_adapter(find_adapter(config.drawing.adapter)), config.scenario.shot
    if adapter.meta.shot not in ("", shot):
        raise InputError(
            f"shot = {shot}: the adapter was fine-tuned with shot = {adapter.meta.shot}; give "
            f"shot={adapter.meta.shot}, or another adapter"
        )
    return adapter


def adapter_run(config: DdpmConfig, samples: list[Sample] | None = None) -> str:
    """Return the run id of the default fine-tuning; run it first if it is not finished."""
    return finetune(finetune_config(config), samples).run_id


def _name_adapter(config: DdpmConfig, samples: list[Sample] | None) -> str:
    """Return the run id or the absolute file name of the adapter."""
    given = config.drawing.adapter
    if not given:
        return adapter_run(config, samples)
    return str(Path(given).resolve()) if Path(given).suffix else given


def _make_ddpm(config: DdpmPoolConfig, samples: list[Sample], work: Path) -> None:
    setup, folder = open_diffusion_setup(config, samples), work_pool(work)
    rows = draw_ddpm(setup, samples, folder, config.seed)
    log_pool(folder, rows, samples, config.geometry)
    strip = _strip(setup)
    if is_grey(read_image(rows[0].image)):
        strip = without_colour(strip)
    mlflow.log_image(strip, artifact_file="alpha_strip.png")


class DiffusionSetup(NamedTuple):
    """Loaded base and adapter with the configuration of diffusion images."""

    config: DdpmPoolConfig
    """Resolved, with the run id or file of the adapter, so that it reproduces the images."""
    base: Base
    """In fp32 on the CPU, where merging is exact and a GPU need not hold it."""
    adapter: Adapter
    hardware: Hardware
    composition: Composition | None
    """The base on the device for composed guidance; None with plain guidance."""

    @property
    def sampling(self) -> SamplingConfig:
        """Sampling options."""
        return self.config.sampling

    @property
    def alpha(self) -> float:
        """Merging weight of the adapter."""
        return known(self.config.drawing.alpha)

    @property
    def prompts(self) -> list[str]:
        """Prompts, used in rotation."""
        return self.config.drawing.prompt_list()

    def merge(self, alpha: float) -> Pipeline:
        """Return the merged pipeline on the device."""
        return merge(self.base.pipeline, self.base.fingerprint, self.adapter, alpha, self.hardware)


def composition(drawing: DrawingConfig, base: Base, adapter: Adapter, hardware: Hardware) -> Composition | None:
    """Return the base and the prompts of an adapter for composed guidance; None with plain guidance.

    Raises:
        InputError: the adapter does not record its instance prompt.
    """
    if drawing.guidance_mode == "plain":
        return None
    if not adapter.meta.instance_prompt:
        raise InputError(
            "guidance_mode = composed: the adapter does not record its instance prompt; give guidance_mode=plain"
        )
    on_device = rebuild(base.pipeline, hardware)
    return Composition(on_device, adapter.meta.instance_prompt, adapter.meta.class_prompt())


def open_on_cpu(config: BaseConfig) -> Base:
    """Open a base in fp32 on the CPU, to merge an adapter exactly."""
    return open_resolved_base(config, HardwareConfig(device="cpu").open())


def open_diffusion_setup(config: DdpmPoolConfig, samples: list[Sample] | None = None) -> DiffusionSetup:
    """Load base and adapter of a resolved configuration; fine-tune on `samples` if no adapter is given."""
    config = config.with_drawing(adapter=_name_adapter(config, samples))
    adapter, base, hardware = adapter_for(config), open_on_cpu(config.base), config.hardware.open()
    return DiffusionSetup(config, base, adapter, hardware, composition(config.drawing, base, adapter, hardware))


def draw_ddpm(
    setup: DiffusionSetup,
    samples: Sequence[Sample],
    folder: Path,
    seed: int,
    before: Sequence[Sample] = (),
    label: int = 1,
) -> list[Sample]:
    """Write `n_aug` diffusion images and their manifest to `folder`; log rejections and `drawn_with.json`.

    Args:
        setup: from `open_diffusion_setup`.
        samples: the dataset.
        folder: an existing folder.
        seed: seed of the images; the seed of the configuration splits the dataset.
        before: pool images that must not be reproduced, in addition to the training images.
        label: 1 if the prompts describe defects, else 0.

    Returns:
        The rows of the new images.
    """
    config, adapter = setup.config, setup.adapter
    mlflow.set_tags(setup.hardware.tags())
    merged = setup.merge(setup.alpha)
    size = config.geometry.width, config.geometry.height
    generator = text2img_generator(
        merged, setup.prompts, seed, [size], setup.sampling, adapter.meta.clip_skip, setup.composition
    )  # fmt: skip
    cache_key = [*text2img_cache_key(config, adapter, samples, seed), *digests([row.image for row in before])]
    known_images = [*(sample for sample in samples if sample.split == "train"), *before]
    training = [fit_image(read_image(sample.image), config.geometry) for sample in known_images]
    generator = grey_generator(generator) if all(is_grey(image) for image in training) else generator
    state = generate(cache_key, config.n_aug, generator, setup.sampling.sample_batch, training, "ddpm")
    log_pool_state(state)
    mlflow.log_dict(config.flat(), DRAWN_WITH)
    rows = [row.with_(image=Path(shutil.copy(row.image, folder))) for row in _ddpm_rows(setup, state, seed, label)]
    write_manifest(rows, folder / "manifest.csv")
    return rows


def text2img_cache_key(config: DdpmPoolConfig, adapter: Adapter, samples: Sequence[Sample], seed: int) -> list[object]:
    """Return the cache key of the images of `draw_ddpm` with empty `before`; `config` is resolved."""
    return [
        "ddpm", base_identity(config.base), adapter.fingerprint, config.drawing.alpha,
        config.drawing.guidance_mode, config.drawing.prompt_list(), config.hardware.precision,
        seed, config.geometry.model_dump(), config.sampling.model_dump(), fingerprint(samples), computed_by(__name__),
    ]  # fmt: skip


def log_pool_state(state: PoolState) -> None:
    """Log the numbers of rejected images by reason."""
    mlflow.log_metrics({f"rejected_{reason}": count for reason, count in state.rejected.items()})


def _ddpm_rows(setup: DiffusionSetup, state: PoolState, seed: int, label: int) -> list[Sample]:
    prompts, adapter = setup.prompts, setup.adapter
    return [
        Sample(
            image=image.path, label=label, split="train", origin="ddpm", seed=image_seed(seed, image.number),
            prompt=prompts[image.number % len(prompts)], alpha=setup.alpha, adapter=adapter.fingerprint,
            base=setup.base.fingerprint, sources=adapter.meta.sources,
        )
        for image in state.kept
    ]  # fmt: skip


def _strip(setup: DiffusionSetup) -> ImageArray:
    """Return a strip of the first candidate of the pool at increasing alpha."""
    images = [_first_candidate(setup, alpha) for alpha in STRIP]
    return contact_sheet(images, [f"{setup.prompts[0]} {alpha:g}" for alpha in STRIP], len(STRIP))


def _first_candidate(setup: DiffusionSetup, alpha: float) -> ImageArray:
    size, seed = setup.config.geometry, image_seed(setup.config.seed, 0)
    drawn = sample(
        setup.merge(alpha), setup.prompts[:1], [seed], width=size.width, height=size.height, config=setup.sampling,
        clip_skip=setup.adapter.meta.clip_skip, composition=setup.composition,
    )  # fmt: skip
    image: ImageArray = next(drawn).images[0]
    return image
