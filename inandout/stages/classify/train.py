"""Entry point `classify`: mix real and synthetic images, train the classifier, evaluate it."""

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import torch

from inandout.classifier.backbone import DefectNet, build_classifier, save_classifier
from inandout.classifier.pixels import Pixels
from inandout.classifier.training import Logits, fit, predict, predictor
from inandout.data.duplicates import refuse_copies
from inandout.data.geometry import survival
from inandout.data.manifest import Sample, digest, fingerprint
from inandout.data.prepare import CheckedData, read_data
from inandout.diffusion.base.identity import base_identity
from inandout.errors import InputError
from inandout.evaluation.metrics import evaluate, ranking
from inandout.fingerprints import Identity
from inandout.hardware import Precision
from inandout.mixing import mix
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.figures import log_images, log_training_mix
from inandout.stages.classify.head_fitting import fit_heads, refuse_few_good_parts
from inandout.stages.classify.localisation import log_localisation, log_recalls, with_maps
from inandout.stages.classify.mask_targets import mask_targets
from inandout.stages.classify.part import Part, load_part
from inandout.stages.classify.scores import Result, log_scores, scored_part
from inandout.stages.classify.synthetic import (
    good_image_config,
    log_synthetic,
    pool_rows,
    synthetic_negatives,
    synthetic_positives,
)
from inandout.stages.classify.trained_classifier import TEST_TAG, TrainedClassifier
from inandout.stages.pools.pool import open_pool
from inandout.tracking.logging import describe_location, log_values, pip_requirements
from inandout.tracking.runs import WEIGHTS, WEIGHTS_TAG, run_stage
from inandout.tracking.store import connect


def classify(config: ClassifyConfig, data: CheckedData | None = None) -> Result:
    """Train and evaluate a classifier, or reuse the finished run.

    Args:
        config: options of the classifier.
        data: the dataset; None = read it.
    """
    connect()
    config = resolve(config)
    data = read_data(config.data.data) if data is None else data
    real = data.take_shot(config.data, config.scenario, config.seed)
    work = partial(_train_and_measure, config, data)
    run = run_stage(_identity(config, real), run_name(config), config.data.data, real, work)
    return Result(run.info.run_id, run.data.metrics)


def classify_and_report(config: ClassifyConfig) -> None:
    """Run `classify`; print the metrics and where the run is."""
    result = classify(config)
    print(f"\n{describe_metrics(result.metrics)}\n\n{describe_location(mlflow.get_run(result.run_id))}")


def describe_metrics(metrics: Mapping[str, float]) -> str:
    """Return one sentence about the metrics of the test part; undefined ones are left out."""
    if "ap" not in metrics:
        return "AP is undefined; the tag inandout.notes of the run says why"
    interval = f" (95 % {metrics['ap_low']:.3f} .. {metrics['ap_high']:.3f})"
    honest = [f", {name} {metrics[name]:.3f}" for name in ("precision", "recall") if name in metrics]
    where = " at the threshold of the validation part" if honest else ""
    return f"test part: AP {metrics['ap']:.3f}{interval}{''.join(honest)}{where}"


def resolve(config: ClassifyConfig) -> ClassifyConfig:
    """Return `config.resolved()` with the alpha of `ddpm_pool`, if that pool has a single alpha."""
    resolved = config.resolved()
    alphas = {sample.alpha for sample in open_pool(config.ddpm_pool).samples} if config.ddpm_pool else set()
    return resolved.model_copy(update={"alpha": alphas.pop()}) if len(alphas) == 1 else resolved


def classify_fingerprint(config: ClassifyConfig, data: CheckedData) -> str:
    """Return the fingerprint of the run of `classify` without training."""
    config = resolve(config)
    return _identity(config, data.take_shot(config.data, config.scenario, config.seed)).fingerprint


def _identity(config: ClassifyConfig, real: Sequence[Sample]) -> Identity:
    inputs = {"data": fingerprint(real)} | input_fingerprints(config)
    return Identity("classify", __name__, config, inputs, ignored_options(config, inputs))


def run_name(config: ClassifyConfig) -> str:
    """Return the name of the run in the MLflow UI; names sort by shot, images and seed."""
    source = f"n_aug={config.mix.n_aug:03d} ddpm={config.ddpm_ratio:.2f}"
    training = "" if config.training_seed is None else f" training_seed={config.training_seed:02d}"
    return f"classify {config.scenario.shot} {source} seed={config.seed:02d}{training}"


def refuse_impossible(config: ClassifyConfig, data: CheckedData) -> None:
    """Raise the InputError that `classify` would raise for data, shot, weights or base, without training."""
    real = data.take_shot(config.data, config.scenario, config.seed)
    if config.mix.n_aug == 0:
        mix(real, [], [], 0, 0.0)
    _initial_model(config, real)
    _base_input(config)


def input_fingerprints(config: ClassifyConfig) -> dict[str, str]:
    """Return fingerprints of the inputs other than the dataset: existing pools, weights and base."""
    pools = [name for name in ("memseg_pool", "ddpm_pool") if getattr(config, name)]
    known = {name: fingerprint(pool_rows(config, name)) for name in pools}
    return known | _start_inputs(config) | _base_input(config)


def _start_inputs(config: ClassifyConfig) -> dict[str, str]:
    """Return the digest of the file that the network is initialised from, or nothing if it is not a file."""
    if not config.start:
        return config.backbone.inputs()
    return {"start": digest(TrainedClassifier.open(config.start, "start").weights)}


def ignored_options(config: ClassifyConfig, inputs: Mapping[str, str]) -> set[str]:
    """Return options that the fingerprint leaves out: an input covers them, or they have no effect."""
    ignored = {"base", "base_config"} | (inputs.keys() & config.options().keys())
    if config.start:
        ignored |= {"weights"}
    if not config.shares()[0]:
        ignored |= {"negatives"}
    if not config.shares()[0] or config.ddpm_pool:
        ignored |= {"diffusion"}
    if config.diffusion != "inpaint" or config.ddpm_pool or not config.shares()[0]:
        ignored |= {"window"}
    return ignored


def _base_input(config: ClassifyConfig) -> dict[str, str]:
    """Return the identity of the base, or nothing if no image depends on it."""
    n_ddpm = config.shares()[0]
    if not n_ddpm:
        return {}
    if config.mix.negatives == "generated":
        good_image_config(config, n_ddpm)
    used = config.mix.negatives == "roundtrip" or not config.ddpm_pool
    if not used:
        return {}
    return {"base": base_identity(config.base)}


def _train_and_measure(config: ClassifyConfig, data: CheckedData, work: Path) -> None:
    real = data.take_shot(config.data, config.scenario, config.seed)
    val, test = (load_part(_rows(real, split), config.geometry) for split in ("val", "test"))
    model, val_logits = train_classifier(config, data, real, val, work)
    model.eval()
    test_logits = predict(model, test.pixels, precision=config.hardware.open().precision)
    evaluation = evaluate(scored_part(test, test_logits), scored_part(val, val_logits), config.val_fpr, config.seed)
    log_values(evaluation.values)
    mlflow.set_tag("inandout.notes", " | ".join(evaluation.notes))
    log_scores([*val.samples, *test.samples], np.concatenate([val_logits, test_logits]))
    log_images(test, test_logits, evaluation.values, lambda indices: with_maps(model, test, indices, config.geometry))
    log_localisation(model, val, test, config.geometry, config.val_fpr)
    if "threshold" in evaluation.values:
        log_recalls(test, test_logits, evaluation.values["threshold"], config.geometry)
    _log_model(model, test.pixels)


def train_classifier(
    config: ClassifyConfig, data: CheckedData, real: list[Sample], val: Part, work: Path
) -> tuple[DefectNet, Logits]:
    """Mix the training part, train, and log inputs, curves and training time.

    Args:
        config: options of the classifier.
        data: the dataset that pools are generated from.
        real: real samples that remain after the shot.
        val: images for the validation curve.
        work: folder of the checkpoint.

    Returns:
        The classifier and its logits (N,) on `val`.
    """
    model = _initial_model(config, real)
    memseg, ddpm = synthetic_positives(config, data)
    refuse_copies([s for s in real if s.split != "train"], [s for s in ddpm[: config.shares()[0]] if not s.sources])
    negatives = synthetic_negatives(config, data, ddpm)
    train = load_part(mix(real, memseg, ddpm, config.mix.n_aug, config.ddpm_ratio, negatives), config.geometry)
    _log_inputs(config, real, train)
    hardware = config.hardware.open()
    weights = config.start or config.backbone.weights_identity()
    mlflow.set_tags(hardware.tags() | {WEIGHTS_TAG: weights})
    started = time.monotonic()
    logits = _train(config, model.to(hardware.device), train, val, work, hardware.precision)
    mlflow.log_metric("seconds_training", time.monotonic() - started)
    if model.mask_head or config.backbone.distances:
        logits = fit_heads(model, real, val, config, hardware.precision)
    return model, predict(model, val.pixels, precision=hardware.precision) if logits is None else logits


def _initial_model(config: ClassifyConfig, real: Sequence[Sample]) -> DefectNet:
    """Build the network with its initial weights: those of `backbone`, or of the classifier `start`.

    Raises:
        InputError: `start` has another backbone, or another test part, so that it may have seen this one; or good
            validation images for the distances are missing.
    """
    refuse_few_good_parts(config, real)
    model = build_classifier(config.backbone, config.own_seed())
    if config.start:
        started = TrainedClassifier.open(config.start, "start")
        if started.test_fingerprint != fingerprint(_rows(real, "test")):
            raise InputError(
                f"start = {config.start}: was trained with another test part; give a classifier of the same data, "
                "seed and fold"
            )
        had, wanted = started.config.backbone, config.backbone
        if (had.backbone, had.head) != (wanted.backbone, wanted.head):
            raise InputError(
                f"start = {config.start}: has backbone={had.backbone} and head={had.head}; give these, or another run"
            )
        trained = started.load()
        trained.distance_head = None  # fitted anew after the training
        model.load_state_dict(trained.state_dict())
    return model


def _rows(samples: Sequence[Sample], split: str) -> list[Sample]:
    return [sample for sample in samples if sample.split == split]


def _train(
    config: ClassifyConfig, model: DefectNet, train: Part, val: Part, work: Path, precision: Precision
) -> Logits | None:  # fmt: skip
    """Train; return the logits of `val` after the last epoch if they were computed, else None."""
    logits: Logits | None = None
    has_ap = 0 < val.labels.sum() < len(val.labels)
    predict_val = predictor(model, val.pixels, precision) if has_ap else None

    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        nonlocal logits
        if predict_val and "val_ap" not in values:
            logits = predict_val()
            values["val_ap"] = ranking(logits, val.labels)["ap"]
        log_values(values, step=epoch)

    checkpoint = work / "checkpoint.safetensors"
    mlflow.set_tag("inandout.resumed", checkpoint.exists())
    is_synthetic_negative = np.array([sample.label == 0 and sample.origin != "real" for sample in train.samples])
    fit(
        model, train.pixels, train.labels, config.fit, seed=config.own_seed(), every_epoch=is_synthetic_negative,
        masks=mask_targets(model, train, config.geometry), checkpoint=checkpoint, precision=precision,
        on_epoch=on_epoch,
    )  # fmt: skip
    return logits


def _log_inputs(config: ClassifyConfig, real: list[Sample], train: Part) -> None:
    """Log the numbers of images, the survival of defects under the geometry, and a contact sheet of the mix."""
    counts = Counter(f"n_{s.split}_{'positives' if s.label else 'negatives'}" for s in real if s.split != "train")
    counts += Counter(f"n_train_{s.origin}_{'positives' if s.label else 'negatives'}" for s in train.samples)
    mlflow.log_params(counts)
    log_synthetic(train.samples)
    mlflow.set_tags(
        {"inandout.survival": survival(real, config.geometry).sentence(), TEST_TAG: fingerprint(_rows(real, "test"))}
    )
    log_training_mix(train, config.seed)


def _log_model(model: DefectNet, pixels: Pixels) -> None:
    """Log the model for serving and its weights as safetensors."""
    model.eval().cpu().to(memory_format=torch.contiguous_format)
    _log_export(model, pixels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        save_classifier(model, path)
        mlflow.log_artifact(str(path))


def _log_export(model: DefectNet, pixels: Pixels) -> None:
    """Log the model as `pt2` with signature and input example: any batch size, evaluation mode."""
    example = np.ascontiguousarray(pixels[:2].transpose(0, 3, 1, 2))
    mlflow.pytorch.log_model(model, name="model", input_example=example, pip_requirements=pip_requirements())
