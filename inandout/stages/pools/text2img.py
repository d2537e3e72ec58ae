"""A pool of whole images from a fine-tuned diffusion model (paper, sections 3 and 4)."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow
from pydantic import Field

from inandout.data.colour import is_grey, without_colour
from inandout.data.geometry import Geometry, fit_image
from inandout.data.images import ImageArray, read_image
from inandout.data.manifest import Sample, digests, fingerprint, write_manifest
from inandout.data.prepare import ShotConfig, prepare_shot
from inandout.diffusion.base.base import Base, BaseConfig, Kind, base_identity, kind_of_base, open_base
from inandout.diffusion.finetune.presets import PRESETS
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.lora.safetensors_io import load_adapter
from inandout.diffusion.sample.generate import PoolState, grey_generator, text2img_generator
from inandout.diffusion.sample.inpaint import require_text2img
from inandout.diffusion.sample.sampler import SamplingConfig, image_seed, sample
from inandout.errors import InputError
from inandout.reporting.figures import contact_sheet
from inandout.stages.finetune import FinetuneConfig, find_adapter, finetune, finetune_fingerprint
from inandout.stages.image_cache import generate
from inandout.stages.pools.pool import Pool, PoolConfig, log_pool, open_pool, work_pool
from inandout.tracking import artifact_folder, artifact_names, connect, run_stage

DRAWN_WITH = "drawn_with.json"
"""Artifact of a diffusion pool: all that its images can be drawn again with."""
STRIP = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Values of alpha that a run shows the first image of a pool at."""


class DdpmConfig(ShotConfig, Geometry, BaseConfig, SamplingConfig):
    """What diffusion images are drawn with."""

    adapter: str = Field(
        "", description="run id of a fine-tuning, or its .safetensors file; empty = as finetune makes by default"
    )
    alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="merging weight of the adapter; none = by base, shot and source (paper: .6, .95, .8)",
    )
    prompts: str = Field(
        "",
        description="separated by |, going round; empty = the adapter's own, and with zero shots a defect after it "
        "(paper: skt background cracked|skt background scratched)",
    )

    def prompt_list(self, instance_prompt: str) -> list[str]:
        """The prompts, none of them empty.

        Raises:
            InputError: none is given, and none is known of the adapter.
        """
        asked = [prompt.strip() for prompt in self.prompts.split("|") if prompt.strip()]
        if not asked and not instance_prompt:
            raise InputError("the adapter does not say which prompt it was trained on; give prompts")
        defects = PRESETS[kind_of_base(self.base), self.shot].defects
        return asked or [f"{instance_prompt} {defect}".strip() for defect in defects]

    def sampling(self, kind: Kind) -> SamplingConfig:
        """The part that says how images are drawn, resolved."""
        return SamplingConfig(**self.model_dump(include=set(SamplingConfig.model_fields))).resolved(kind)

    def merging_alpha(self) -> float:
        """The resolved `alpha`."""
        return PRESETS[kind_of_base(self.base), self.shot].alpha if self.alpha is None else self.alpha


class DdpmPoolConfig(DdpmConfig, PoolConfig):
    """A pool of diffusion images."""


def augment_ddpm(config: DdpmPoolConfig, samples: list[Sample] | None = None) -> Pool:
    """A pool of images from the base merged with an adapter, which is fine-tuned first where none is given.

    `samples` is the data set, split and with its shot; None = read it and split it by the seed of the pool.
    """
    connect()
    samples = prepare_shot(config) if samples is None else samples
    inputs = ddpm_inputs(config, samples)
    name = f"ddpm {config.shot} alpha={config.merging_alpha():g} n={config.n_aug} seed={config.seed}"
    run = run_stage("augment", name, config, inputs, samples, lambda work: _make_ddpm(config, samples, work))
    return open_pool(run.info.run_id)


def ddpm_inputs(config: DdpmPoolConfig, samples: Sequence[Sample]) -> dict[str, str]:
    """Fingerprints of what a diffusion pool is made from, told without making any of it."""
    return {"data": fingerprint(samples), "base": base_identity(config), "adapter": adapter_identity(config, samples)}


def adapter_identity(config: DdpmConfig, samples: Sequence[Sample]) -> str:
    """Of the adapter that is asked for, which need not be trained yet."""
    if config.adapter:
        return _given_adapter(config).fingerprint
    return finetune_fingerprint(finetune_config(config), samples)


def adapter_for(config: DdpmConfig, samples: list[Sample] | None = None) -> Adapter:
    """The adapter that is asked for, fine-tuned on `samples` first where none is given."""
    return _given_adapter(config) if config.adapter else load_adapter(finetune(finetune_config(config), samples).adapter)


def _given_adapter(config: DdpmConfig) -> Adapter:
    adapter = load_adapter(find_adapter(config.adapter))
    if adapter.meta.shot not in ("", config.shot):
        raise InputError(
            f"shot = {config.shot}: the adapter was fine-tuned with shot = {adapter.meta.shot}, so its images are of "
            f"another kind; give shot={adapter.meta.shot}, or another adapter"
        )
    return adapter


def finetune_config(config: DdpmConfig) -> FinetuneConfig:
    """As `finetune` does it by default."""
    return FinetuneConfig(**config.model_dump(include=set(FinetuneConfig.model_fields) - {"fresh"}))


def adapter_run(config: DdpmConfig, samples: list[Sample] | None = None) -> str:
    """The run of the fine-tuning that is done where no adapter is given, done now if need be."""
    return finetune(finetune_config(config), samples).run_id


def _name_adapter(config: DdpmConfig, samples: list[Sample] | None) -> str:
    """What finds the adapter again, from any folder: the run that trained it, or its file."""
    if not config.adapter:
        return adapter_run(config, samples)
    return str(Path(config.adapter).resolve()) if Path(config.adapter).suffix else config.adapter


def _make_ddpm(config: DdpmPoolConfig, samples: list[Sample], work: Path) -> None:
    setup, folder = open_diffusion_setup(config, samples), work_pool(work)
    rows = draw_ddpm(setup, samples, folder, config.seed)
    log_pool(folder, rows)
    strip = _strip(setup)
    if is_grey(read_image(rows[0].image)):
        strip = without_colour(strip)
    mlflow.log_image(strip, artifact_file="alpha_strip.png")


class DiffusionSetup(NamedTuple):
    """What diffusion images are drawn with, opened."""

    config: DdpmPoolConfig
    """Without None and with nothing left to look up: drawn again from it, an image is the same."""
    base: Base
    adapter: Adapter

    @property
    def sampling(self) -> SamplingConfig:
        """The part that says how images are drawn."""
        return self.config.sampling(self.base.kind)

    @property
    def prompts(self) -> list[str]:
        """They go round."""
        return self.config.prompt_list(self.adapter.meta.instance_prompt)


def open_diffusion_setup(config: DdpmPoolConfig, samples: list[Sample] | None = None) -> DiffusionSetup:
    """Load base and adapter, which is fine-tuned on `samples` first where none is given, and resolve the rest."""
    config = config.model_copy(update={"adapter": _name_adapter(config, samples)})
    adapter, base = adapter_for(config), open_base(config)
    require_text2img(base.pipeline)
    sampling = config.sampling(base.kind)
    known = {"prompts": "|".join(config.prompt_list(adapter.meta.instance_prompt)), "alpha": config.merging_alpha()}
    return DiffusionSetup(config.model_copy(update=sampling.model_dump() | known), base, adapter)


def draw_ddpm(
    setup: DiffusionSetup, samples: Sequence[Sample], folder: Path, seed: int, before: Sequence[Sample] = (), label: int = 1
) -> list[Sample]:  # fmt: skip
    """`n_aug` diffusion images and their manifest in a folder; logs what became of the others and `drawn_with.json`.

    Args:
        setup: as opened.
        samples: the data set.
        folder: exists.
        seed: of the images; that of the configuration says how the data set is parted.
        before: images of a pool that must not come back, as those of the training part must not.
        label: 1 where the prompts ask for defects, 0 where they do not.
    """
    config, adapter = setup.config, setup.adapter
    merged = merge(setup.base.pipeline, setup.base.fingerprint, adapter, config.merging_alpha())
    generator = text2img_generator(
        merged, setup.prompts, seed, [(config.width, config.height)], setup.sampling, adapter.meta.clip_skip
    )  # fmt: skip
    asked = [*text2img_cache_key(config, adapter, samples, seed), *digests([one.image for one in before])]
    known = [*(sample for sample in samples if sample.split == "train"), *before]
    training = [fit_image(read_image(sample.image), config) for sample in known]
    generator = grey_generator(generator) if all(is_grey(image) for image in training) else generator
    state = generate(asked, config.n_aug, generator, config.sample_batch, training, "ddpm")
    log_pool_state(state, config.merging_alpha(), setup.prompts)
    mlflow.log_dict(config.model_dump(mode="json"), DRAWN_WITH)
    rows = [row.with_(image=Path(shutil.copy(row.image, folder))) for row in _ddpm_rows(setup, state, seed, label)]
    write_manifest(rows, folder / "manifest.csv")
    return rows


def text2img_cache_key(config: DdpmPoolConfig, adapter: Adapter, samples: Sequence[Sample], seed: int) -> list[object]:
    """What `draw_ddpm` asks `generate` for, where no pool is to be added to."""
    prompts, sampling = config.prompt_list(adapter.meta.instance_prompt), config.sampling(kind_of_base(config.base))
    return [
        "ddpm", base_identity(config), adapter.fingerprint, config.merging_alpha(), prompts, seed, config.width,
        config.height, config.fit, sampling.model_dump(), fingerprint(samples),
    ]  # fmt: skip


def log_pool_state(state: PoolState, alpha: float | None, prompts: Sequence[str]) -> None:
    """What was kept out, and with what the rest was drawn."""
    mlflow.log_metrics({f"rejected_{reason}": count for reason, count in state.rejected.items()})
    mlflow.log_params({"used_alpha": alpha, "used_prompts": "|".join(prompts)[:500]})


def _ddpm_rows(setup: DiffusionSetup, state: PoolState, seed: int, label: int) -> list[Sample]:
    prompts, adapter = setup.prompts, setup.adapter
    return [
        Sample(
            image=one.path, label=label, split="train", origin="ddpm", seed=image_seed(seed, one.number),
            prompt=prompts[one.number % len(prompts)], alpha=setup.config.merging_alpha(), adapter=adapter.fingerprint,
            base=setup.base.fingerprint, sources=adapter.meta.sources,
        )
        for one in state.kept
    ]  # fmt: skip


def _strip(setup: DiffusionSetup) -> ImageArray:
    """The first candidate of the pool at rising alpha."""
    config, prompt, images = setup.config, setup.prompts[0], []
    for alpha in STRIP:
        merged = merge(setup.base.pipeline, setup.base.fingerprint, setup.adapter, alpha)
        drawn = sample(
            merged, [prompt], [image_seed(config.seed, 0)], width=config.width, height=config.height,
            config=setup.sampling, clip_skip=setup.adapter.meta.clip_skip,
        )  # fmt: skip
        images.append(next(drawn).images[0])
    return contact_sheet(images, [f"{prompt} {alpha:g}" for alpha in STRIP], len(STRIP))


def drawn_with(run_id: str) -> DdpmPoolConfig | None:
    """What the images of a run were drawn with, nothing left open; None where the run says nothing of that."""
    if DRAWN_WITH not in artifact_names(run_id):
        return None
    return DdpmPoolConfig(**json.loads(artifact_folder(run_id, DRAWN_WITH).read_text(encoding="utf-8")))
