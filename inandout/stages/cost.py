"""What classifiers will cost before they are trained: counted, and timed with a few steps on this machine."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from inandout.classifier.fit import fit
from inandout.classifier.resnet import build_classifier
from inandout.data.prepare import prepare_shot
from inandout.diffusion.base import BaseConfig, kind_of_base, open_base
from inandout.diffusion.sampling import SamplingConfig
from inandout.errors import InputError
from inandout.mixing import share_out
from inandout.report import aligned
from inandout.stages.classify import classify_fingerprint
from inandout.stages.classify_config import ClassifyConfig
from inandout.stages.ddpm import finetuning_of
from inandout.stages.finetune import FinetuneConfig, choose_instances, finetune_fingerprint
from inandout.stages.synthetic import diffusion_pool
from inandout.tracking import find_finished

GPU_SHARE = 0.3
"""Of a GPU's peak that training is taken to reach."""
_BACKWARD = 3
"""Cost of a training step in forward passes."""


class Timed(NamedTuple):
    """What something costs."""

    seconds: float
    """On this machine."""
    flops: float

    def times(self, number: int) -> "Timed":
        """So many of it."""
        return Timed(self.seconds * number, self.flops * number)


class Work(NamedTuple):
    """One kind of work that is missing."""

    name: str
    number: int
    """Of training steps, or of pictures."""
    each: Timed


def estimate(configs: Sequence[ClassifyConfig], gpu_tflops: float | None, train: bool = True) -> str:
    """A table of what is missing, with the time on this machine and, when it is stated, on a GPU.

    Pools of pictures that were made for other cells count as missing: they cost seconds, not hours, to be found.

    Args:
        configs: of the classifiers.
        gpu_tflops: peak of a GPU in 10^12 operations a second.
        train: whether they are trained, and not only their pictures made.
    """
    missing = [config for config in configs if find_finished(classify_fingerprint(config)) is None]
    text = f"{len(configs)} cells, of which {len(configs) - len(missing)} are finished and reused"
    if not missing:
        return text
    tunings, n_pictures = _tunings(missing), _pictures(missing)
    works = [_classifying(missing)] if train else []
    if n_pictures:
        how = SamplingConfig().resolved(kind_of_base(missing[0].base))
        assert how.steps is not None and how.guidance is not None
        unet = _unet(missing[0])
        works += [
            Work("fine-tuning, pictures", sum(map(_shown, tunings)), unet.times(_BACKWARD)),
            Work("diffusion, pictures", n_pictures, unet.times(how.steps * (2 if how.guidance > 1 else 1))),
        ]
    return f"{text}; {len(tunings)} adapters are missing\n\n{_table(works, gpu_tflops)}"


def _table(works: Sequence[Work], gpu_tflops: float | None) -> str:
    gpu = [f"hours on a GPU of {gpu_tflops:g} TFLOP/s"] if gpu_tflops else []
    lines = [["work", "number", "seconds each", "hours here", *gpu]]
    for work in works:
        here = f"{work.number * work.each.seconds / 3600:.2f}"
        there = [f"{work.number * work.each.flops / (gpu_tflops * 1e12 * GPU_SHARE) / 3600:.2f}"] if gpu_tflops else []
        lines.append([work.name, str(work.number), f"{work.each.seconds:.3f}", here, *there])
    hours = sum(work.number * work.each.seconds for work in works) / 3600
    notes = f"about {hours:.1f} hours on this machine, from steps timed now ({torch.get_num_threads()} threads)"
    return aligned(lines) + f"\n\n{notes}" + (f"; a GPU is taken to reach {GPU_SHARE:.0%} of its peak" if gpu else "")


def _classifying(configs: Sequence[ClassifyConfig]) -> Work:
    """Steps of all classifiers, and one of them on made-up pictures."""
    steps = sum(config.epochs * -(-2 * _positives(config) // config.batch_size) for config in configs)
    return Work("classifier, training steps", steps, _classifier_step(configs[0]))


def _positives(config: ClassifyConfig) -> int:
    real = sum(sample.split == "train" and sample.label == 1 for sample in prepare_shot(config))
    return real + config.n_aug


def _classifier_step(config: ClassifyConfig) -> Timed:
    """As `fit` trains, on one batch of made-up pictures: an epoch is a step."""
    pixels, labels = np.zeros((config.batch_size, config.height, config.width, 3), np.uint8), _halves(config.batch_size)
    ends: list[float] = []

    def train(epochs: int) -> None:
        fit(
            build_classifier("none", 0), pixels, labels, epochs=epochs, batch_size=config.batch_size, seed=0,
            optimiser=config.optimiser, lr=config.lr, on_epoch=lambda epoch, values: ends.append(time.perf_counter()),
        )  # fmt: skip

    with FlopCounterMode(display=False) as counter:
        train(1)
    train(3)
    return Timed(ends[3] - ends[2], counter.get_total_flops())


def _halves(count: int) -> npt.NDArray[np.int64]:
    """(count,): as many of one label as of the other."""
    return np.arange(count) % 2


def _tunings(configs: Sequence[ClassifyConfig]) -> list[FinetuneConfig]:
    """Adapters that are not there yet, each once."""
    pools = [diffusion_pool(config, 1) for config in configs if _n_diffusion(config)]
    asked = {finetune_fingerprint(tuning): tuning for tuning in map(finetuning_of, pools)}
    return [tuning for key, tuning in asked.items() if find_finished(key) is None]


def _shown(config: FinetuneConfig) -> int:
    """Pictures that a fine-tuning sees: its own, and as many of the class prompt."""
    instances = len(choose_instances(prepare_shot(config), config.shot, config.n_negatives, config.seed))
    return config.profile().epochs * config.repeats * instances * (2 if config.prior_weight else 1)


def _pictures(configs: Sequence[ClassifyConfig]) -> int:
    """To be drawn by diffusion: a smaller pool is the beginning of a larger one."""
    most: dict[tuple[object, ...], int] = {}
    for config in configs:
        key = (config.shot, config.seed, config.diffusion)
        most[key] = max(most.get(key, 0), _n_diffusion(config))
    return sum(most.values())


def _n_diffusion(config: ClassifyConfig) -> int:
    return share_out(config.n_aug, config.ddpm_ratio)[0]


def _unet(config: ClassifyConfig) -> Timed:
    """One picture through the UNet once. Of a Stable Diffusion that is not here it is counted, not timed."""
    try:
        pipeline = open_base(BaseConfig(base=config.base, base_config=config.base_config)).pipeline
    except InputError:
        flops = _pass(_stable_diffusion(), 8, config, torch.device("meta")).flops
        classifier = _classifier_step(config)
        return Timed(flops / classifier.flops * classifier.seconds, flops)
    return _pass(pipeline.unet, pipeline.vae_scale_factor, config, pipeline.device)


def _stable_diffusion() -> UNet2DConditionModel:
    """That of version 1.5, without weights."""
    with torch.device("meta"):
        return UNet2DConditionModel(cross_attention_dim=768)


@torch.no_grad()
def _pass(unet: UNet2DConditionModel, factor: int, config: ClassifyConfig, device: torch.device) -> Timed:
    """A batch of pictures of the classifier's size, the time and operations of one."""
    count, height, width = SamplingConfig().sample_batch, -(-config.height // factor), -(-config.width // factor)
    height, width = (-(-side // 8) * 8 for side in (height, width))
    latents = torch.zeros(count, unet.config.in_channels, height, width, device=device)
    states = torch.zeros(count, 77, unet.config.cross_attention_dim, device=device)
    with FlopCounterMode(display=False) as counter:
        unet(latents, 1, states)
    started = time.perf_counter()
    unet(latents, 1, states)
    return Timed((time.perf_counter() - started) / count, counter.get_total_flops() / count)
