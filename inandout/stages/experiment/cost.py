"""Estimate the cost of an experiment: count its steps, and time a few of them on this machine."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from inandout.classifier.backbone import build_classifier
from inandout.classifier.config import Backbone, BackboneConfig, FitConfig
from inandout.classifier.training import fit
from inandout.data.config import Size
from inandout.diffusion.base.base import open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.base.hub import is_hub_id
from inandout.diffusion.prompts import Conditioning
from inandout.diffusion.sample.config import SamplingConfig
from inandout.errors import InputError
from inandout.hardware import HardwareConfig, find_device
from inandout.options import known
from inandout.reporting.tables import aligned
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.config import FinetuneConfig, drawn_size
from inandout.stages.experiment.duration import BACKWARD, image_passes, overhead, passes
from inandout.stages.experiment.missing import (
    count_images,
    count_shown,
    missing_images,
    missing_priors,
    training_steps,
)
from inandout.stages.experiment.plan import Config, Plan, Task, add_missing
from inandout.stages.pools.config import DdpmPoolConfig, InpaintPoolConfig
from inandout.stages.pools.text2img import STRIP

GPU_SHARE = 0.3
"""Assumed utilisation of a GPU's peak, 0..1."""
_FACTOR = 8
"""Scale factor of the VAE of Stable Diffusion: image pixels per latent pixel along a side."""


class Timed(NamedTuple):
    """Cost of a unit of work."""

    seconds: float
    """Seconds on this machine."""
    flops: float
    measured: bool = True
    """Whether the seconds were measured or derived from the operations."""

    def times(self, number: float) -> "Timed":
        """Return the cost of `number` units."""
        return self._replace(seconds=self.seconds * number, flops=self.flops * number)


class Work(NamedTuple):
    """Missing work of one kind."""

    name: str
    number: int
    """Number of training steps or images."""
    each: Timed


def estimate(plan: Plan, gpu_tflops: float | None) -> str:
    """Return a table of the missing work, with the time on this machine and, with `gpu_tflops`, on a GPU.

    Finished adapters and images of other runs are reused and not counted. VAE passes and rejected images are neglected.

    Args:
        plan: plan of an experiment.
        gpu_tflops: peak of a GPU in 10^12 operations per second.
    """
    missing = plan.missing()
    absent = {task.identity for task in missing}
    finished = sum(goal.identity not in absent for goal in plan.goals)
    name = "cells" if any(goal.stage in ("classify", "nearest") for goal in plan.goals) else "pools"
    text = f"{len(plan.goals)} {name}, {finished} finished and reused"
    if not missing:
        return text
    counts = Counter(task.stage for task in missing)
    text += f"; {counts['finetune']} adapters and {counts['augment'] + counts['negatives']} pools are missing"
    works = [*_classifying(missing, plan), *_diffusing(missing, plan)]
    return f"{text}\n\n{_table(works, gpu_tflops)}"


def cheapest_first(plan: Plan) -> list[tuple[int, float]]:
    """Return the numbers of all cells in the order of execution, with their estimated seconds on this machine.

    The cell that takes least time with all that it needs comes first. What several cells need, such as an adapter,
    counts for the first of them. A cell whose run is finished takes 0 seconds.
    """
    alone = [_seconds(goal, {}, plan) for goal in plan.goals]
    seen: dict[str, Task[Config]] = {}
    order = sorted(range(len(alone)), key=alone.__getitem__)
    return [(number, _seconds(plan.goals[number], seen, plan)) for number in order]


def _seconds(goal: Task[Config], seen: dict[str, Task[Config]], plan: Plan) -> float:
    """Return the estimated seconds of a goal and its missing dependencies, without the tasks in `seen`; add to it."""
    before = len(seen)
    add_missing(goal, seen)
    tasks = list(seen.values())[before:]
    works = [*_classifying(tasks, plan), *_diffusing(tasks, plan)]
    return sum(work.number * work.each.seconds for work in works) + sum(overhead(t.stage, t.config) for t in tasks)


def _table(works: Sequence[Work], gpu_tflops: float | None) -> str:
    gpu = [f"hours on a GPU of {gpu_tflops:g} TFLOP/s"] if gpu_tflops else []
    lines = [["work", "number", "seconds each", "hours here", *gpu]]
    for work in works:
        local = f"{work.number * work.each.seconds / 3600:.2f}"
        gpu_hours = (
            [f"{work.number * work.each.flops / (gpu_tflops * 1e12 * GPU_SHARE) / 3600:.2f}"] if gpu_tflops else []
        )
        lines.append([work.name, str(work.number), f"{work.each.seconds:.3f}", local, *gpu_hours])
    hours = sum(work.number * work.each.seconds for work in works) / 3600
    on_gpu = find_device().type == "cuda"
    where = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads"
    notes = [f"about {hours:.1f} hours on this machine, from steps timed now ({where})"]
    if not all(work.each.measured for work in works):
        notes.append("the base is not downloaded: its time is derived from counted operations, not measured")
    if gpu:
        notes.append(f"GPU times assume {GPU_SHARE:.0%} of the peak")
    return aligned(lines) + "\n\n" + "; ".join(notes)


def _classifying(missing: Sequence[Task[Config]], plan: Plan) -> list[Work]:
    """Return the training steps of all missing classifiers, or the images of a frozen backbone.

    Empty if no classifier is missing. All cells share the backbone and what is frozen.
    """
    configs = [task.config for task in missing if isinstance(task.config, ClassifyConfig)]
    if not configs:
        return []
    data, shared = plan.data, plan.cells[0].config
    step = _classifier_step(shared.backbone.backbone, shared.fit, shared.geometry, shared.hardware)
    if configs[0].backbone.freeze == "all":
        images = sum(count_images(config, data) for config in configs)
        return [Work("classifier, images", images, step.times(1 / (BACKWARD * configs[0].fit.batch_size)))]
    return [Work("classifier, training steps", sum(training_steps(config, data) for config in configs), step)]


@cache
def _classifier_step(backbone: Backbone, config: FitConfig, size: Size, requested: HardwareConfig) -> Timed:
    """Time one step of `fit` on a batch of blank images with nothing frozen; an epoch is one step."""
    count, hardware = config.batch_size, requested.open()
    pixels, labels = np.zeros((count, size.height, size.width, 3), np.uint8), _alternating_labels(count)
    ends: list[float] = []

    def train(epochs: int) -> None:
        fit(
            build_classifier(BackboneConfig(backbone=backbone), 0).to(hardware.device), pixels, labels,
            config.model_copy(update={"epochs": epochs}), seed=0, precision=hardware.precision,
            on_epoch=lambda epoch, values: ends.append(_now(hardware.device)),
        )  # fmt: skip

    with FlopCounterMode(display=False) as counter:
        train(1)
    train(3)
    return Timed(ends[3] - ends[2], counter.get_total_flops())


def _now(device: torch.device) -> float:
    """Return the time in seconds after synchronising the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _alternating_labels(count: int) -> npt.NDArray[np.int64]:
    """Return alternating labels (count,)."""
    return np.arange(count) % 2


def _diffusing(missing: Sequence[Task[Config]], plan: Plan) -> list[Work]:
    """Return missing fine-tunings and diffusion images; load the base only if something is missing."""
    tunings = [task.config for task in missing if isinstance(task.config, FinetuneConfig)]
    diffusion = [(task.stage, task.config) for task in missing if isinstance(task.config, DdpmPoolConfig)]
    defects, goods = ([pool for stage, pool in diffusion if stage == wanted] for wanted in ("augment", "negatives"))
    strips = [(pool, len(STRIP)) for pool in defects if not isinstance(pool, InpaintPoolConfig)]
    images = {
        "diffusion, images": [*missing_images(defects, plan.data).items(), *strips],
        "good parts, images": [*missing_images(goods, plan.data).items()],
    }
    works = [*_fine_tuning(tunings, plan)]
    for name, pools in images.items():
        works += [Work(name, number, _image(pool, plan)) for pool, number in pools if number]
    names = dict.fromkeys(work.name for work in works if work.number)
    return [_together([work for work in works if work.name == name]) for name in names]


def _fine_tuning(tunings: Sequence[FinetuneConfig], plan: Plan) -> Iterator[Work]:
    """Yield the training and the prior images of missing fine-tunings, each size apart."""
    for size in dict.fromkeys(_size(tuning) for tuning in tunings):
        same = [tuning for tuning in tunings if _size(tuning) == size]
        factor, pass_ = _pass_of(same[0], plan)
        sampling = SamplingConfig().resolved(same[0].base.kind())
        prior = pass_.times(known(sampling.steps) * passes("plain", known(sampling.guidance)))
        shown = sum(count_shown(tuning, plan.data) for tuning in same)
        yield Work("fine-tuning, images", shown, pass_.times(BACKWARD))
        yield Work("prior preservation, images", missing_priors(same, factor), prior)


def _together(works: Sequence[Work]) -> Work:
    """Return works of one kind as one, with their mean cost."""
    number = sum(work.number for work in works)
    seconds = sum(work.number * work.each.seconds for work in works) / number
    flops = sum(work.number * work.each.flops for work in works) / number
    return Work(works[0].name, number, works[0].each._replace(seconds=seconds, flops=flops))


def _size(config: FinetuneConfig | DdpmPoolConfig) -> Size:
    """Return the size of the images that a base learns or draws, without their fit, so that each size is timed once."""
    window = config.window if isinstance(config, FinetuneConfig) else config.learned_window()
    size = drawn_size(config.geometry, window, config.base)
    return Size(width=size.width, height=size.height)


def _image(pool: DdpmPoolConfig, plan: Plan) -> Timed:
    """Return the cost of an image of a pool."""
    return _pass_of(pool, plan)[1].times(image_passes(pool.resolved()))


def _pass_of(config: FinetuneConfig | DdpmPoolConfig, plan: Plan) -> tuple[int, Timed]:
    """Return the scale factor of the VAE and the cost of one UNet pass for one image of a fine-tuning or a pool."""
    shared, size = plan.cells[0].config, _size(config)
    return _unet(config.base, size, shared.hardware) or _counted_unet(shared, size)


@cache
def _unet(base: BaseConfig, size: Size, requested: HardwareConfig) -> tuple[int, Timed] | None:
    """Return the scale factor of the VAE and the cost of one UNet pass for one image; None if it is not downloaded."""
    try:
        pipeline = open_base(base, requested.open(), download=False).pipeline
    except InputError:  # on the hub, also if the configuration is here and the weights are not
        if not is_hub_id(base.base) or Path(base.base).exists():
            raise
        return None
    return pipeline.vae_scale_factor, _pass(pipeline.unet, pipeline.vae_scale_factor, size, pipeline.device)


@cache
def _counted_unet(config: ClassifyConfig, size: Size) -> tuple[int, Timed]:
    """Return the same for Stable Diffusion 1.5; seconds follow from the operations."""
    flops = _pass(_stable_diffusion(), _FACTOR, size, torch.device("meta")).flops
    classifier = _classifier_step(config.backbone.backbone, config.fit, config.geometry, config.hardware)
    return _FACTOR, Timed(flops / classifier.flops * classifier.seconds, flops, measured=False)


def _stable_diffusion() -> UNet2DConditionModel:
    """Return the UNet of Stable Diffusion 1.5 on the meta device."""
    with torch.device("meta"):
        return UNet2DConditionModel(cross_attention_dim=768)


@torch.no_grad()
def _pass(unet: UNet2DConditionModel, factor: int, size: Size, device: torch.device) -> Timed:
    """Run a batch of images of a size; return the cost per image."""
    count = SamplingConfig().sample_batch
    height, width = -(-size.height // factor), -(-size.width // factor)
    height, width = (-(-side // 8) * 8 for side in (height, width))
    dtype = unet.conv_in.weight.dtype
    latents = torch.zeros(count, unet.config.in_channels, height, width, device=device, dtype=dtype)
    arguments = _blank_prompts(unet, count, device).unet_arguments(height * factor, width * factor, dtype)
    with FlopCounterMode(display=False) as counter:
        unet(latents, 1, **arguments)
    started = _now(device)
    unet(latents, 1, **arguments)
    return Timed((_now(device) - started) / count, counter.get_total_flops() / count)


def _blank_prompts(unet: UNet2DConditionModel, count: int, device: torch.device) -> Conditioning:
    """Return zeros in place of encoded prompts."""
    config, pooled = unet.config, None
    if config.addition_embed_type == "text_time":  # SDXL: the input is a summary of the prompt, and six sizes
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        pooled = torch.zeros(count, width, device=device)
    return Conditioning(torch.zeros(count, 77, config.cross_attention_dim, device=device), pooled)
