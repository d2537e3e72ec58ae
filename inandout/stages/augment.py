"""Entry point `augment`: a pool of synthetic positives, from MemSeg or from a fine-tuned diffusion model."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import mlflow
from pydantic import BaseModel, ConfigDict, Field

from inandout.data.geometry import Geometry, fit_image
from inandout.data.images import Picture, read_image
from inandout.data.manifest import Sample, digests, fingerprint, read_manifest, write_manifest
from inandout.data.prepare import DataConfig, ShotConfig, prepare, prepare_shot
from inandout.diffusion.adapter_file import load_adapter
from inandout.diffusion.base import Base, BaseConfig, base_identity, kind_of_base, open_base
from inandout.diffusion.merge import merge
from inandout.diffusion.pool import Filled, sampler
from inandout.diffusion.profiles import PROFILES
from inandout.diffusion.sampling import SamplingConfig, picture_seed, sample
from inandout.diffusion.trained import Adapter
from inandout.errors import InputError
from inandout.memseg.config import MemSegConfig
from inandout.memseg.pool import write_pool
from inandout.memseg.textures import FolderTextures, open_textures
from inandout.pictures import contact_sheet
from inandout.review.gallery import write_gallery
from inandout.stages.finetune import FinetuneConfig, find_adapter, finetune, finetune_fingerprint
from inandout.stages.generated import generate
from inandout.tracking import artifact_folder, connect, run_stage

SHEET_SIZE = 32
"""Pictures on the contact sheet of a pool."""
STRIP = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Values of alpha that a run shows the first picture of a pool at."""


class PoolConfig(BaseModel):
    """What any pool has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_aug: int = Field(60, ge=1, le=100_000, description="number of synthetic positives")
    fresh: bool = Field(False, description="run again although a finished run has the same fingerprint")


class MemSegPoolConfig(DataConfig, Geometry, MemSegConfig, PoolConfig):
    """A MemSeg pool."""

    def memseg(self) -> MemSegConfig:
        """The part that says how anomalies are drawn."""
        return MemSegConfig(**self.model_dump(include=set(MemSegConfig.model_fields)))


class DdpmConfig(ShotConfig, Geometry, BaseConfig, SamplingConfig):
    """What diffusion pictures are drawn with."""

    adapter: str = Field(
        "", description="run id of a fine-tuning, or its .safetensors file; empty = as finetune makes by default"
    )
    alpha: float | None = Field(
        None, ge=0, le=1, description="merging weight of the adapter; none = by base and shot (paper: .6, .95, .8)"
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
        defects = PROFILES[kind_of_base(self.base), self.shot].defects
        return asked or [f"{instance_prompt} {defect}".strip() for defect in defects]

    def weight(self) -> float:
        """The resolved `alpha`."""
        return PROFILES[kind_of_base(self.base), self.shot].alpha if self.alpha is None else self.alpha


class DdpmPoolConfig(DdpmConfig, PoolConfig):
    """A pool of diffusion pictures."""


class AugmentConfig(MemSegPoolConfig, DdpmPoolConfig):  # type: ignore[misc]  # the plugin does not know diamonds
    """One pool; the options of the other source do not matter."""

    source: Literal["memseg", "ddpm"] = Field("memseg", description="memseg, or ddpm: a fine-tuned diffusion model")


class Pool(NamedTuple):
    """Synthetic pictures and the run that made them."""

    samples: list[Sample]
    run_id: str


def augment(config: AugmentConfig) -> Pool:
    """Make a pool of synthetic positives, or find it where it was made before."""
    if config.source == "memseg":
        return augment_memseg(MemSegPoolConfig(**config.model_dump(include=set(MemSegPoolConfig.model_fields))))
    return augment_ddpm(DdpmPoolConfig(**config.model_dump(include=set(DdpmPoolConfig.model_fields))))


def augment_memseg(config: MemSegPoolConfig, parted: list[Sample] | None = None) -> Pool:
    """A pool of MemSeg anomalies on negatives of the training part.

    `parted` is the data set where another seed than the pictures' parts it.
    """
    connect()
    samples = prepare(config) if parted is None else parted
    inputs = {"data": fingerprint(samples)} | _texture_digests(config.textures)
    name = f"memseg n={config.n_aug} seed={config.seed}"
    run = run_stage("augment", name, config, inputs, samples, lambda work: _make_memseg(config, samples, work))
    return Pool(read_pool(artifact_folder(run.info.run_id, "pool")), run.info.run_id)


def augment_ddpm(config: DdpmPoolConfig, parted: list[Sample] | None = None) -> Pool:
    """A pool of pictures from the base merged with an adapter, which is fine-tuned first where none is given.

    `parted` is the data set where another seed than the pictures' parts it.
    """
    connect()
    samples = prepare_shot(config) if parted is None else parted
    inputs = {"data": fingerprint(samples), "base": base_identity(config), "adapter": _adapter_identity(config)}
    name = f"ddpm {config.shot} alpha={config.weight():g} n={config.n_aug} seed={config.seed}"
    run = run_stage("augment", name, config, inputs, samples, lambda work: _make_ddpm(config, samples, work))
    return Pool(read_pool(artifact_folder(run.info.run_id, "pool")), run.info.run_id)


def _adapter_identity(config: DdpmConfig) -> str:
    """Of the adapter that is asked for, which need not be trained yet."""
    if config.adapter:
        return _given_adapter(config).fingerprint
    return finetune_fingerprint(_finetuning(config))


def adapter_for(config: DdpmConfig) -> Adapter:
    """The adapter that is asked for, fine-tuned first where none is given."""
    return _given_adapter(config) if config.adapter else load_adapter(finetune(_finetuning(config)).adapter)


def _given_adapter(config: DdpmConfig) -> Adapter:
    adapter = load_adapter(find_adapter(config.adapter))
    if adapter.meta.shot not in ("", config.shot):
        raise InputError(
            f"shot = {config.shot}: the adapter was fine-tuned with shot = {adapter.meta.shot}, so its pictures are of "
            f"another kind; give shot={adapter.meta.shot}, or another adapter"
        )
    return adapter


def _finetuning(config: DdpmConfig) -> FinetuneConfig:
    """As `finetune` does it by default."""
    return FinetuneConfig(**config.model_dump(include=set(FinetuneConfig.model_fields) - {"fresh"}))


def adapter_run(config: DdpmConfig) -> str:
    """The run of the fine-tuning that is done where no adapter is given, done now if need be."""
    return finetune(_finetuning(config)).run_id


def read_pool(folder: Path) -> list[Sample]:
    """The manifest of a pool folder."""
    path = folder / "manifest.csv"
    if not path.exists():
        raise InputError(f"{folder}: not a pool of pictures; it needs a manifest.csv as `augment` writes it")
    return read_manifest(path)


def open_pool(where: str) -> list[Sample]:
    """The manifest of a pool, by its folder or the run id of `augment`."""
    return read_pool(pool_folder(where))


def pool_folder(where: str) -> Path:
    """Where a pool lies, given as a folder or as the run that made it."""
    return Path(where) if Path(where).is_dir() else artifact_folder(where, "pool")


def _texture_digests(folder: str) -> dict[str, str]:
    """Identity of a folder of textures; the procedural ones belong to the code."""
    if not folder:
        return {}
    textures = open_textures(folder)
    assert isinstance(textures, FolderTextures)
    return {"textures": " ".join(digests(textures.paths))}


def _make_memseg(config: MemSegPoolConfig, samples: list[Sample], work: Path) -> None:
    negatives = [sample for sample in samples if sample.split == "train" and sample.label == 0]
    folder = _pool_folder(work)
    pool = write_pool(negatives, folder, n=config.n_aug, geometry=config, seed=config.seed, config=config.memseg())
    _log_pool(folder, pool, [f"seed {sample.seed}" for sample in pool])


def _make_ddpm(config: DdpmPoolConfig, samples: list[Sample], work: Path) -> None:
    adapter = adapter_for(config)
    base = open_base(config)
    how = SamplingConfig(**config.model_dump(include=set(SamplingConfig.model_fields))).resolved(base.kind)
    prompts, folder = config.prompt_list(adapter.meta.instance_prompt), _pool_folder(work)
    merged = merge(base.pipeline, base.fingerprint, adapter, config.weight())
    make = sampler(merged, prompts, config.seed, [(config.width, config.height)], how, adapter.meta.clip_skip)
    asked = [
        "ddpm", base_identity(config), adapter.fingerprint, config.weight(), prompts, config.seed, config.width,
        config.height, config.fit, how.model_dump(), fingerprint(samples),
    ]  # fmt: skip
    training = (fit_image(read_image(sample.image), config) for sample in samples if sample.split == "train")
    filled = generate(asked, config.n_aug, make, how.sample_batch, training, "ddpm")
    mlflow.log_metrics({f"rejected_{reason}": count for reason, count in filled.rejected.items()})
    mlflow.log_params({"used_alpha": config.weight(), "used_prompts": "|".join(prompts)[:500]})
    rows = _ddpm_rows(config, filled, prompts, base, adapter)
    pool = [row.with_(image=Path(shutil.copy(row.image, folder))) for row in rows]
    write_manifest(pool, folder / "manifest.csv")
    _log_pool(folder, pool, [sample.prompt for sample in pool])
    mlflow.log_image(_strip(config, base, adapter, how), artifact_file="alpha_strip.png")


def _ddpm_rows(
    config: DdpmPoolConfig, filled: Filled, prompts: Sequence[str], base: Base, adapter: Adapter
) -> list[Sample]:  # fmt: skip
    return [
        Sample(
            image=one.path, label=1, split="train", origin="ddpm", seed=picture_seed(config.seed, one.number),
            prompt=prompts[one.number % len(prompts)], alpha=config.weight(), adapter=adapter.fingerprint,
            base=base.fingerprint, sources=adapter.meta.sources,
        )
        for one in filled.kept
    ]  # fmt: skip


def _strip(config: DdpmPoolConfig, base: Base, adapter: Adapter, how: SamplingConfig) -> Picture:
    """The first candidate of the pool at rising alpha."""
    prompt, seed = config.prompt_list(adapter.meta.instance_prompt)[0], picture_seed(config.seed, 0)
    pictures = []
    for alpha in STRIP:
        merged = merge(base.pipeline, base.fingerprint, adapter, alpha)
        drawn = sample(
            merged, [prompt], [seed], width=config.width, height=config.height, config=how,
            clip_skip=adapter.meta.clip_skip,
        )  # fmt: skip
        pictures.append(next(drawn).pictures[0])
    return contact_sheet(pictures, [f"{prompt} {alpha:g}" for alpha in STRIP], len(STRIP))


def _pool_folder(work: Path) -> Path:
    folder = work.resolve() / "pool"
    folder.mkdir(exist_ok=True)
    return folder


def _log_pool(folder: Path, pool: Sequence[Sample], captions: Sequence[str]) -> None:
    mlflow.log_artifacts(str(folder), "pool")
    gallery = folder.with_name("index.html")
    write_gallery(gallery, f"{len(pool)} {pool[0].origin} pictures", folder, pool, "../pool")
    mlflow.log_artifact(str(gallery), "gallery")
    shown = [read_image(sample.image) for sample in pool[:SHEET_SIZE]]
    mlflow.log_image(contact_sheet(shown, list(captions[:SHEET_SIZE])), artifact_file="pool.png")
