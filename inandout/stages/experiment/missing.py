"""Count the missing work of a plan; images in the cache are not counted."""

from collections.abc import Sequence
from pathlib import Path

from inandout.data.prepare import CheckedData
from inandout.diffusion.lora.safetensors_io import load_adapter
from inandout.diffusion.sample.generate import count_kept
from inandout.options import known
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.config import FinetuneConfig, drawn_size
from inandout.stages.finetune import (
    choose_instances,
    find_adapter,
    finetune_fingerprint,
    prior_cache_key,
    training_size,
)
from inandout.stages.image_cache import generated_folder
from inandout.stages.pools.config import NO_ADAPTER, DdpmPoolConfig, InpaintPoolConfig, finetune_config
from inandout.stages.pools.inpaint import inpaint_cache_key
from inandout.stages.pools.text2img import resolve, text2img_cache_key
from inandout.tracking.runs import find_finished


def training_steps(config: ClassifyConfig, data: CheckedData) -> int:
    """Return the training steps. An epoch has all positives, as many negatives, and all synthetic negatives."""
    samples = data.take_shot(config.data, config.scenario, config.seed)
    real = sum(sample.split == "train" and sample.label == 1 for sample in samples)
    epoch = 2 * (real + config.mix.n_aug) + (0 if config.mix.negatives == "none" else config.shares()[0])
    return config.fit.epochs * -(-epoch // config.fit.batch_size)


def count_images(config: ClassifyConfig, data: CheckedData) -> int:
    """Return the number of images of all parts, which a frozen backbone sees once."""
    samples = data.take_shot(config.data, config.scenario, config.seed)
    negatives = 0 if config.mix.negatives == "none" else config.shares()[0]
    return len(samples) + config.mix.n_aug + negatives


def count_shown(config: FinetuneConfig, data: CheckedData) -> int:
    """Return the number of images in a fine-tuning: instances, and as many prior images."""
    config, samples = config.resolved(), data.take_shot(config.data, config.scenario, config.seed)
    instances = len(choose_instances(samples, config))
    return known(config.epochs) * config.training.repeats * instances * (2 if config.n_prior else 1)


def missing_priors(tunings: Sequence[FinetuneConfig], factor: int) -> int:
    """Return the number of missing prior images. Fine-tunings with equal seeds share them across shots.

    Args:
        tunings: missing fine-tunings, without buckets.
        factor: scale factor of the base's VAE.
    """
    most: dict[Path, int] = {}
    for tuning in tunings:
        folder = generated_folder(
            prior_cache_key(tuning, [training_size(drawn_size(tuning.geometry, tuning.window, tuning.base), factor)])
        )
        most[folder] = max(most.get(folder, 0), known(tuning.resolved().n_prior))
    return sum(max(n - count_kept(folder), 0) for folder, n in most.items())


def missing_images(configs: Sequence[DdpmPoolConfig], data: CheckedData) -> dict[DdpmPoolConfig, int]:
    """Return pools to their numbers of missing images. A smaller pool is a prefix of a larger one and left out."""
    most: dict[DdpmPoolConfig, DdpmPoolConfig] = {}
    for config in sorted(configs, key=lambda config: config.n_aug):
        most[config.model_copy(update={"n_aug": 1})] = config
    return {config: max(config.n_aug - _drawn(config, data), 0) for config in most.values()}


def _drawn(config: DdpmPoolConfig, data: CheckedData) -> int:
    """Return the number of cached images of pools that differ only in `n_aug`."""
    samples = data.take_shot(config.data, config.scenario, config.seed)
    if config.drawing.adapter == NO_ADAPTER and isinstance(config, InpaintPoolConfig):
        return count_kept(generated_folder(inpaint_cache_key(config.resolved(), None, samples)))
    run = find_finished(finetune_fingerprint(finetune_config(config), samples))
    if run is None:
        return 0
    adapter = load_adapter(find_adapter(run.info.run_id))
    config = resolve(config)
    if isinstance(config, InpaintPoolConfig):
        return count_kept(generated_folder(inpaint_cache_key(config, adapter, samples)))
    return count_kept(generated_folder(text2img_cache_key(config, adapter, samples, config.seed)))
