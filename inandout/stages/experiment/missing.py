"""What diffusion still has to do for classifiers: adapters and pictures that were made for nothing else before."""

from collections.abc import Sequence
from pathlib import Path

from inandout.data.prepare import prepare_shot
from inandout.diffusion.lora.safetensors_io import load_adapter
from inandout.diffusion.sample.generate import count_kept
from inandout.stages.finetune import (
    FinetuneConfig,
    asked_prior,
    choose_instances,
    find_adapter,
    finetune_fingerprint,
    learned_size,
)
from inandout.stages.image_cache import generated_folder
from inandout.stages.pools.inpaint import InpaintPoolConfig, asked_inpaint
from inandout.stages.pools.text2img import STRIP, DdpmPoolConfig, asked_ddpm, ddpm_fingerprint, finetuning_of
from inandout.tracking import find_finished


def missing_tunings(pools: Sequence[DdpmPoolConfig]) -> list[FinetuneConfig]:
    """Fine-tunings of pools, each once; none of the pools has an adapter given."""
    asked = {finetune_fingerprint(tuning): tuning for tuning in dict.fromkeys(map(finetuning_of, pools))}
    return [tuning for key, tuning in asked.items() if find_finished(key) is None]


def shown(config: FinetuneConfig) -> int:
    """Pictures that a fine-tuning sees: its own, and as many of the class prompt."""
    instances = len(choose_instances(prepare_shot(config), config.shot, config.n_negatives, config.seed))
    profile = config.profile()
    return profile.epochs * config.repeats * instances * (2 if profile.n_prior else 1)


def missing_priors(tunings: Sequence[FinetuneConfig], factor: int) -> int:
    """Pictures of the class prompt: fine-tunings of a seed share them, whatever their shot.

    Args:
        tunings: that are missing, without buckets.
        factor: pixels of a side that the base's VAE makes one.
    """
    most: dict[Path, int] = {}
    for tuning in tunings:
        folder = generated_folder(asked_prior(tuning, [learned_size(tuning, factor)]))
        most[folder] = max(most.get(folder, 0), tuning.profile().n_prior)
    return sum(max(n - count_kept(folder), 0) for folder, n in most.items())


def missing_pictures(pools: Sequence[DdpmPoolConfig]) -> int:
    """Pictures of pools: a smaller pool is the beginning of a larger one."""
    most: dict[DdpmPoolConfig, int] = {}
    for pool in pools:
        key = pool.model_copy(update={"n_aug": 1})
        most[key] = max(most.get(key, 0), pool.n_aug)
    return sum(max(n - _drawn(pool), 0) for pool, n in most.items())


def _drawn(pool: DdpmPoolConfig) -> int:
    """Pictures that are there, of any pool that differs in their number alone."""
    run = find_finished(finetune_fingerprint(finetuning_of(pool)))
    if run is None:
        return 0
    adapter, samples = load_adapter(find_adapter(run.info.run_id)), prepare_shot(pool)
    if isinstance(pool, InpaintPoolConfig):
        return count_kept(generated_folder(asked_inpaint(pool, adapter, samples)))
    return count_kept(generated_folder(asked_ddpm(pool, adapter, samples, pool.seed)))


def missing_strips(pools: Sequence[DdpmPoolConfig]) -> int:
    """Pictures at rising alpha, which every pool of whole pictures draws beside its own."""
    whole = {pool for pool in pools if not isinstance(pool, InpaintPoolConfig)}
    return len(STRIP) * sum(find_finished(ddpm_fingerprint(pool)) is None for pool in whole)
