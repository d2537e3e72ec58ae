"""Rough duration of a stage, from its options and the number of images; importing it loads no model library.

The announcement of a command prints it. `cost.py` times steps on the machine instead, for a dry run of `experiment`.
"""

from pathlib import Path
from typing import NamedTuple

from inandout.classifier.config import Backbone
from inandout.data.config import EMBEDDED, KINDS, DataConfig, ShotConfig, Size, SurfacesConfig
from inandout.data.readers import scan_data
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.sample.config import GuidanceMode, SamplingConfig
from inandout.options import known
from inandout.processes import allowed_cores
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.config import FinetuneConfig, drawn_size
from inandout.stages.pools.config import (
    AugmentConfig,
    DdpmPoolConfig,
    InpaintPoolConfig,
    MemSegPoolConfig,
    finetune_config,
)

OVERHEAD = {"classify": 9.0, "nearest": 60.0, "finetune": 4.0, "augment": 2.0, "negatives": 2.0}
"""Seconds of a run outside training and drawing: reading, evaluating, logging (measured on two CPU cores)."""
BACKWARD = 3
"""Cost of a training step in forward passes."""

_TRAINING: dict[Backbone, float] = {"resnet50": 8.8, "resnet18": 3.5, "mobilenet_v2": 1.6, "efficientnet_b0": 2.6}
"""Seconds of a CPU core to train on a megapixel (measured at 64x192, batches of 8, fp32)."""
_EMBEDDED = 3.9
"""Seconds of a CPU core for a pass of the embedded UNet over a megapixel (measured at 64x192)."""
_STABLE_DIFFUSION = 35.0
"""The same for Stable Diffusion 1.5, estimated from its number of operations."""
_SCALING = 0.75
"""Assumed speed-up: c cores are c ** 0.75 times as fast as one."""


class _Counts(NamedTuple):
    """Numbers of real images."""

    good: float
    """To train on."""
    defects: float
    """To train on, before the shot."""
    evaluated: float
    """Of the validation and test parts."""
    kinds: int
    """Number of kinds of defects that they name."""


def describe_duration(config: ClassifyConfig | AugmentConfig | FinetuneConfig) -> str:
    """Return a sentence about the duration of `classify`, `augment` or `finetune`, if nothing is reused.

    Args:
        config: resolved configuration.

    Raises:
        InputError: the dataset cannot be read.
    """
    counts, cores = _count_training(config.data), allowed_cores()
    if isinstance(config, ClassifyConfig):
        seconds = _classify(config, counts)
    elif isinstance(config, FinetuneConfig):
        seconds = _finetune(config, counts)
    else:
        pool = config.source_config().resolved()
        seconds = OVERHEAD["augment"] if isinstance(pool, MemSegPoolConfig) else _draw(pool, counts)
    text = f"{_text(seconds / cores**_SCALING)} on {cores} CPU core{'s' * (cores > 1)} (a rough estimate)"
    return f"{text}; less on a GPU, or if finished parts are reused"


def overhead(stage: str, config: object) -> float:
    """Return the seconds of a stage beside its steps; distances take as long as the nearest-neighbour baseline."""
    distances = isinstance(config, ClassifyConfig) and config.backbone.distances
    return OVERHEAD[stage] + (OVERHEAD["nearest"] if distances else 0.0)


def passes(mode: GuidanceMode, scale: float) -> int:
    """Return the number of UNet passes per step and image."""
    return 3 if mode == "composed" else 2 if scale > 1 else 1


def image_passes(pool: DdpmPoolConfig) -> int:
    """Return the number of UNet passes for an image of a resolved pool.

    For a drawn mask, an image is also drawn with its defect, and in one pass per step without it.
    """
    each = passes(known(pool.drawing.guidance_mode), known(pool.sampling.guidance))
    drawn_mask = isinstance(pool, InpaintPoolConfig) and pool.masks == "drawn"
    return known(pool.sampling.steps) * (2 * each + 1 if drawn_mask else each)


def _count_training(config: DataConfig) -> _Counts:
    if config.data == EMBEDDED:
        surfaces, share = SurfacesConfig(), 1 - config.val_share
        good, defects = surfaces.train_negatives, surfaces.train_positives
        evaluated = surfaces.test_negatives + surfaces.test_positives + (1 - share) * (good + defects)
        return _Counts(share * good, share * defects, evaluated, len(KINDS))
    samples = scan_data(Path(config.data)).samples
    splits = {sample.split for sample in samples}
    share = (1.0 if "val" in splits else 1 - config.val_share) * (1 - config.test_share if "" in splits else 1.0)
    training = [sample for sample in samples if sample.split in ("", "train")]
    positives = sum(sample.label for sample in training)
    kinds = {sample.defect for sample in training if sample.label == 1} - {""}
    evaluated = len(samples) - share * len(training)
    return _Counts(share * (len(training) - positives), share * positives, evaluated, len(kinds))


def _defects(scenario: ShotConfig, counts: _Counts) -> float:
    """Return the number of real defects to train on."""
    few = float(scenario.n_shot * (counts.kinds if scenario.each_kind else 1))
    return {"zero": 0.0, "few": few, "full": counts.defects}[scenario.shot]


def _classify(config: ClassifyConfig, counts: _Counts) -> float:
    n_ddpm = config.shares()[0]
    drawn = n_ddpm if config.mix.negatives == "generated" else 0
    images = 2 * (_defects(config.scenario, counts) + config.mix.n_aug)
    images += n_ddpm if config.mix.negatives != "none" else 0
    shown = config.fit.epochs * images
    if config.backbone.freeze == "all":  # the features of an image are computed once
        shown = (counts.good + images / 2) / BACKWARD
    shown += counts.evaluated / BACKWARD
    seconds = overhead("classify", config) + shown * _megapixels(config.geometry) * _TRAINING[config.backbone.backbone]
    if not n_ddpm or config.ddpm_pool:
        return seconds
    return seconds + _draw(config.diffusion_pool(n_ddpm + drawn).resolved(), counts)


def _draw(pool: DdpmPoolConfig, counts: _Counts) -> float:
    size = drawn_size(pool.geometry, pool.learned_window(), pool.base)
    seconds = OVERHEAD["augment"] + pool.n_aug * image_passes(pool) * _megapixels(size) * _unet(pool.base)
    return seconds if pool.drawing.adapter else seconds + _finetune(finetune_config(pool).resolved(), counts)


def _finetune(config: FinetuneConfig, counts: _Counts) -> float:
    defects = _defects(config.scenario, counts)
    instances = min(config.n_negatives, counts.good) if config.scenario.shot == "zero" else defects
    n_prior, sampling = known(config.n_prior), SamplingConfig().resolved(config.base.kind())
    trained = known(config.epochs) * config.training.repeats * instances * (2 if n_prior else 1) * BACKWARD
    drawn = n_prior * known(sampling.steps) * passes("plain", known(sampling.guidance))
    size = drawn_size(config.geometry, config.window, config.base)
    return OVERHEAD["finetune"] + (trained + drawn) * _megapixels(size) * _unet(config.base)


def _megapixels(size: Size) -> float:
    return size.width * size.height / 1e6


def _unet(base: BaseConfig) -> float:
    return _EMBEDDED if base.kind() == "embedded" else _STABLE_DIFFUSION


def _text(seconds: float) -> str:
    if seconds < 45:
        return "less than a minute"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.0f} hours"
