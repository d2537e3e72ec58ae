"""Entry point `finetune`: DreamBooth with LoRA-C3Lier on images of the training part."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import mlflow
import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from inandout.data.config import Geometry, Size
from inandout.data.geometry import fit_image, fit_mask
from inandout.data.images import ImageArray, Mask, read_image, read_mask
from inandout.data.manifest import Sample, fingerprint
from inandout.data.prepare import prepare_shot
from inandout.diffusion.base.base import Base
from inandout.diffusion.base.identity import base_identity
from inandout.diffusion.callbacks import OnStep
from inandout.diffusion.finetune.buckets import bucket_of
from inandout.diffusion.finetune.defect_weights import check_masks
from inandout.diffusion.finetune.dreambooth import chosen_optimiser, processes
from inandout.diffusion.finetune.train_adapter import train_adapter
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.layers import count_modules
from inandout.diffusion.lora.safetensors_io import save_adapter
from inandout.diffusion.prompts import check_prompt
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.generate import text2img_generator
from inandout.diffusion.sample.window import cut, cut_mask, own_size, random_window, window_around
from inandout.errors import InputError, did_you_mean
from inandout.fingerprints import Identity, code_fingerprint, computed_by
from inandout.hardware import Hardware, find_device
from inandout.options import known
from inandout.reporting.figures import contact_sheet
from inandout.seeds import PoolStream, generator
from inandout.stages.config import AdapterSize, FinetuneConfig
from inandout.stages.image_cache import generate
from inandout.stages.latent_cache import encode_once
from inandout.stages.resolved_base import open_resolved_base
from inandout.tracking.logging import log_values, mean_logger
from inandout.tracking.runs import artifact_folder, current_commit, run_stage
from inandout.tracking.store import connect

ADAPTER = Path("adapter", "adapter.safetensors")
"""Artifact of `finetune`: the adapter."""
_SHOWN = 32
_LOGGED_EVERY = 10
_COUNTS = ("instance_seen", "prior_seen")


class Finetuned(NamedTuple):
    """File of an adapter and its run id."""

    adapter: Path
    run_id: str


def finetune(config: FinetuneConfig, samples: list[Sample] | None = None) -> Finetuned:
    """Train an adapter on the images of a product, or reuse the finished run.

    Args:
        config: options of the adapter.
        samples: the split dataset after the shot; None = read it.
    """
    config = config.resolved()
    if not _processes(config).is_main_process:
        return _train_as_worker(config)
    connect()
    samples = prepare_shot(config.data, config.scenario, config.seed) if samples is None else samples
    name = f"finetune {config.scenario.shot} {config.base.base.rsplit('/', 1)[-1]} seed={config.seed:02d}"
    trained = False

    def work(folder: Path) -> None:
        nonlocal trained
        trained = True
        _broadcast_folder(config, str(folder))
        _train_and_log(config, samples, folder)

    run = run_stage(_identity(config, samples), name, config.data.data, samples, work)
    if not trained:
        _broadcast_folder(config, "")
    return Finetuned(find_adapter(run.info.run_id), run.info.run_id)


def finetune_fingerprint(config: FinetuneConfig, samples: Sequence[Sample]) -> str:
    """Return the fingerprint of the run of `finetune` without training."""
    return _identity(config.resolved(), samples).fingerprint


def _identity(config: FinetuneConfig, samples: Sequence[Sample]) -> Identity:
    inputs = {"data": fingerprint(samples), "base": base_identity(config.base)}
    return Identity("finetune", __name__, config, inputs, ignored=("data", "base", "base_config"))


def find_adapter(name: str) -> Path:
    """Return the file of an adapter, given by its file or run id."""
    return Path(name) if Path(name).suffix else artifact_folder(name, str(ADAPTER.parent)) / ADAPTER.name


def _train_as_worker(config: FinetuneConfig) -> Finetuned:
    """Train in a non-main process of `accelerate launch`: process a share of every batch, without tracking."""
    folder = _broadcast_folder(config, "")
    if folder:
        samples = prepare_shot(config.data, config.scenario, config.seed)
        _train(config, _load_inputs(config, samples), Path(folder), lambda step, values: None)
    return Finetuned(Path(), "")


def _processes(config: FinetuneConfig) -> PartialState:
    return processes(find_device(config.hardware.device))


def _broadcast_folder(config: FinetuneConfig, folder: str) -> str:
    """Broadcast the work folder from the main process; "" means that there is nothing to train."""
    message = [folder]
    if _processes(config).num_processes > 1:
        broadcast_object_list(message)
    return message[0]


class _TrainingInputs(NamedTuple):
    """Inputs of a training."""

    hardware: Hardware
    base: Base
    instances: list[Sample]
    images: list[ImageArray]
    """Images (H, W, 3) of the instances, at training size."""
    masks: list[Mask | None]
    """Their defects (H, W); None without a defect or a mask, or if neither `window` nor `mask_weight` needs it."""
    prior: list[ImageArray]


def _train_and_log(config: FinetuneConfig, samples: Sequence[Sample], work: Path) -> None:
    inputs = _load_inputs(config, samples)
    mlflow.log_params({"n_instances": len(inputs.instances), "base_fingerprint": inputs.base.fingerprint})
    mlflow.log_param("used_optimiser", chosen_optimiser(config.training.optimiser, inputs.hardware.device))
    mlflow.set_tags(inputs.hardware.tags())
    for name, images in (("instances", inputs.images), ("prior", inputs.prior)):
        if images:
            first = images[:_SHOWN]
            mlflow.log_image(contact_sheet(first, [""] * len(first)), artifact_file=f"{name}.png")
    adapter = _train(config, inputs, work, _logger())
    mlflow.log_params(count_modules(adapter.tensors))
    save_adapter(work / ADAPTER.name, adapter)
    mlflow.log_artifact(str(work / ADAPTER.name), str(ADAPTER.parent))
    mlflow.set_tag("inandout.adapter", adapter.fingerprint)


def _load_inputs(config: FinetuneConfig, samples: Sequence[Sample]) -> _TrainingInputs:
    """Load, generate and check the inputs of the training."""
    instances = choose_instances(samples, config)
    hardware = config.hardware.open()
    base = open_resolved_base(config.base, hardware)
    for prompt in (config.instance_prompt, config.prior_prompt):
        check_prompt(base.pipeline.tokenizer, prompt)
    images = fit_images([read_image(sample.image) for sample in instances], config.geometry, base)
    needed = config.window is not None or config.training.mask_weight > 1
    masks = [
        _fit_defect(sample, image, config) if needed else None for sample, image in zip(instances, images, strict=True)
    ]
    check_masks(masks, config.training.mask_weight)
    if config.window:
        cuts = [
            _cut(image, mask, config, place, own_size(base.pipeline))
            for place, (image, mask) in enumerate(zip(images, masks, strict=True))
        ]
        images, masks = [image for image, _ in cuts], [mask for _, mask in cuts]
    with _processes(config).main_process_first():
        prior = prior_images(config, base, sorted({image.shape[1::-1] for image in images}))
    return _TrainingInputs(hardware, base, instances, images, masks, prior)


def choose_instances(samples: Sequence[Sample], config: FinetuneConfig) -> list[Sample]:
    """Return the instances of the training part: positives (of `kind`), or up to `n_negatives` negatives at zero shot.

    Raises:
        InputError: no positive of the training part is of this kind.
    """
    training = [sample for sample in samples if sample.split == "train"]
    positives = [sample for sample in training if sample.label == 1]
    if config.kind:
        return of_kind(positives, config.kind)
    if config.scenario.shot != "zero":
        return positives
    negatives = [sample for sample in training if sample.label == 0]
    order = np.random.default_rng(config.seed).permutation(len(negatives))[: config.n_negatives]
    return [negatives[int(place)] for place in order]


def of_kind(positives: Sequence[Sample], kind: str) -> list[Sample]:
    """Return the positives of a kind.

    Raises:
        InputError: there are none; the message lists the kinds.
    """
    chosen = [sample for sample in positives if sample.defect == kind]
    if not chosen:
        counts = Counter(sample.defect for sample in positives if sample.defect)
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        known_kinds = f"give one of {listed}" if listed else "the column defect of the manifest is empty"
        raise InputError(
            f"kind = {kind}: no training positive is of this kind after the shot; {known_kinds}"
            f"{did_you_mean(kind, counts)}"
        )
    return chosen


def fit_images(images: Sequence[ImageArray], requested: AdapterSize, base: Base) -> list[ImageArray]:
    """Fit images to sizes that are divisible by the scale factor of the base's VAE."""
    factor = base.pipeline.vae_scale_factor
    if requested.fit == "bucket":
        area, multiple = requested.width * requested.height, 8 * factor
        sizes = [bucket_of(image.shape[1], image.shape[0], area, multiple) for image in images]
        return [fit_image(image, size) for image, size in zip(images, sizes, strict=True)]
    width, height = training_size(requested, factor)
    size = Geometry(width=width, height=height, fit=requested.fit)
    return [fit_image(image, size) for image in images]


def _fit_defect(sample: Sample, image: ImageArray, config: FinetuneConfig) -> Mask | None:
    """Return the mask (H, W) of the defect in a fitted image; None if there is none or no mask."""
    if sample.mask is None or sample.label == 0:
        return None
    fit: Literal["crop", "stretch"] = "stretch" if config.geometry.fit == "stretch" else "crop"  # buckets crop as well
    size = Geometry.model_construct(width=image.shape[1], height=image.shape[0], fit=fit)
    mask = fit_mask(read_mask(sample.mask), size)
    return mask if mask.any() else None


def _cut(
    image: ImageArray, mask: Mask | None, config: FinetuneConfig, place: int, side: int
) -> tuple[ImageArray, Mask | None]:
    """Return the window of a fitted image and mask: around the defect, or at a random place without one."""
    if mask is not None:
        window = window_around(mask, known(config.window))
    else:
        rng = generator(config.seed, PoolStream.WINDOWS, place)
        window = random_window((image.shape[0], image.shape[1]), known(config.window), None, rng)
    size = (side, side)
    return cut(image, window, size), None if mask is None else cut_mask(mask, window, size)


def training_size(requested: Size, factor: int) -> tuple[int, int]:
    """Return (width, height) of images without buckets: `requested` rounded up to multiples of the VAE's `factor`."""
    return -(-requested.width // factor) * factor, -(-requested.height // factor) * factor


def prior_images(config: FinetuneConfig, base: Base, sizes: Sequence[tuple[int, int]]) -> list[ImageArray]:
    """Generate images of the class prompt with the base; runs with equal options share them in the cache."""
    n = known(config.n_prior)
    if n == 0:
        return []
    sampling = _prior_sampling(config)
    generator = text2img_generator(base.pipeline, [config.prior_prompt], config.seed, sizes, sampling, config.clip_skip)
    kept = generate(prior_cache_key(config, sizes), n, generator, sampling.sample_batch, [], "prior").kept
    return [read_image(image.path) for image in kept]


def _prior_sampling(config: FinetuneConfig) -> SamplingConfig:
    """Return the settings of prior images; as many are in memory at a time as in the training."""
    settings = SamplingConfig().resolved(config.base.kind())
    most = config.training.micro_batch or settings.sample_batch
    return settings.model_copy(update={"sample_batch": min(settings.sample_batch, most)})


def prior_cache_key(config: FinetuneConfig, sizes: Sequence[tuple[int, int]]) -> list[object]:
    """Return the cache key of `prior_images`: equal for fine-tunings with the same seed and sizes."""
    sampling = _prior_sampling(config)
    return [
        "prior", base_identity(config.base), config.prior_prompt, config.seed, config.clip_skip, sizes,
        config.hardware.precision, sampling.model_dump(), computed_by(text2img_generator.__module__),
    ]  # fmt: skip


def _train(config: FinetuneConfig, inputs: _TrainingInputs, work: Path, on_step: OnStep) -> Adapter:
    """Train and return the adapter; it is the same in every process."""
    return train_adapter(
        inputs.base, inputs.images, epochs=known(config.epochs), lr=known(config.lr), config=config.training,
        seed=config.seed, adapter=config.adapter, masks=inputs.masks,
        instance_prompt=config.instance_prompt, prior_images=inputs.prior,
        prior_prompt=config.prior_prompt, clip_skip=config.clip_skip,
        sources=[sample.image for sample in inputs.instances], shot=config.scenario.shot,
        code=code_fingerprint(__name__), commit=current_commit(), encoder=encode_once,
        checkpoint=work / "checkpoint.safetensors", on_step=on_step,
    )  # fmt: skip


def _logger() -> OnStep:
    """Return a callback that logs means of the losses and the cumulative counts of images."""
    log_means = mean_logger(_LOGGED_EVERY)

    def on_step(step: int, values: dict[str, float]) -> None:
        log_means(step, {name: value for name, value in values.items() if name not in _COUNTS})
        if step % _LOGGED_EVERY == 0 or values["progress"] == 1:
            log_values({name: values[name] for name in _COUNTS}, step=step)

    return on_step
