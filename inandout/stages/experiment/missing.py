"""What diffusion still has to do for classifiers: adapters and images that were made for nothing else before."""

from collections.abc import Sequence
from pathlib import Path

from inandout.data.prepare import prepare_shot
from inandout.diffusion.lora.safetensors_io import load_adapter
from inandout.diffusion.sample.generate import count_kept
from inandout.options import known
from inandout.stages.finetune import (
    FinetuneConfig,
    choose_instances,
    find_adapter,
    finetune_fingerprint,
    prior_cache_key,
    training_size,
)
from inandout.stages.image_cache import generated_folder
from inandout.stages.pools.inpaint import InpaintPoolConfig, inpaint_cache_key
from inandout.stages.pools.text2img import (
    STRIP,
    DdpmPoolConfig,
    ddpm_fingerprint,
    finetune_config,
    resolve,
    text2img_cache_key,
)
from inandout.tracking.runs import find_finished


def missing_tunings(pools: Sequence[DdpmPoolConfig]) -> list[FinetuneConfig]:
    """Fine-tunings of pools, each once; none of the pools has an adapter given."""
    asked = {finetune_fingerprint(tuning): tuning for tuning in dict.fromkeys(map(finetune_config, pools))}
    return [tuning for key, tuning in asked.items() if find_finished(key) is None]


def count_shown(config: FinetuneConfig) -> int:
    """Images that a fine-tuning sees: its own, and as many of the class prompt."""
    samples, config = prepare_shot(config.data, config.scenario, config.seed), config.resolved()
    instances = len(choose_instances(samples, config.scenario.shot, config.n_negatives, config.seed))
    return known(config.epochs) * config.training.repeats * instances * (2 if config.n_prior else 1)


def missing_priors(tunings: Sequence[FinetuneConfig], factor: int) -> int:
    """Images of the class prompt: fine-tunings of a seed share them, whatever their shot.

    Args:
        tunings: that are missing, without buckets.
        factor: pixels of a side that the base's VAE makes one.
    """
    most: dict[Path, int] = {}
    for tuning in tunings:
        folder = generated_folder(prior_cache_key(tuning, [training_size(tuning.geometry, factor)]))
        most[folder] = max(most.get(folder, 0), known(tuning.resolved().n_prior))
    return sum(max(n - count_kept(folder), 0) for folder, n in most.items())


def missing_images(pools: Sequence[DdpmPoolConfig]) -> int:
    """Images of pools: a smaller pool is the beginning of a larger one."""
    most: dict[DdpmPoolConfig, int] = {}
    for pool in pools:
        key = pool.model_copy(update={"n_aug": 1})
        most[key] = max(most.get(key, 0), pool.n_aug)
    return sum(max(n - _drawn(pool), 0) for pool, n in most.items())


def _drawn(pool: DdpmPoolConfig) -> int:
    """Images that are there, of any pool that differs in their number alone."""
    run = find_finished(finetune_fingerprint(finetune_config(pool)))
    if run is None:
        return 0
    adapter = load_adapter(find_adapter(run.info.run_id))
    samples, pool = prepare_shot(pool.data, pool.scenario, pool.seed), resolve(pool)
    if isinstance(pool, InpaintPoolConfig):
        return count_kept(generated_folder(inpaint_cache_key(pool, adapter, samples)))
    return count_kept(generated_folder(text2img_cache_key(pool, adapter, samples, pool.seed)))


def missing_strips(pools: Sequence[DdpmPoolConfig]) -> int:
    """Images at rising alpha, which every pool of whole images draws beside its own."""
    whole = {pool for pool in pools if not isinstance(pool, InpaintPoolConfig)}
    return len(STRIP) * sum(find_finished(ddpm_fingerprint(pool)) is None for pool in whole)
