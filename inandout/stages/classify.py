"""Entry point `classify`: mix real and synthetic pictures, train the ResNet-50, measure it by both protocols."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import mlflow
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import save_file

from inandout.classifier.fit import Labels, Logits, Optimiser, fit, predict
from inandout.classifier.pixels import Pixels, load_pixels
from inandout.classifier.resnet import DefectNet, build_classifier
from inandout.data.geometry import Geometry, fit_mask, survival
from inandout.data.images import Picture, read_mask
from inandout.data.manifest import Sample, digest, fingerprint
from inandout.data.prepare import ShotConfig, SourceConfig, prepare_shot
from inandout.diffusion.base import BaseConfig, base_identity
from inandout.errors import InputError
from inandout.metrics import evaluate, ranking
from inandout.mixing import mix, share_out
from inandout.pictures import contact_sheet, outline, pr_curve
from inandout.review.news import summarise
from inandout.stages.augment import MemSegPoolConfig, augment_memseg
from inandout.stages.ddpm import DdpmPoolConfig, augment_ddpm
from inandout.stages.inpaint import InpaintPoolConfig, augment_inpaint
from inandout.stages.negatives import Negatives, RoundTripConfig, good_drawing, good_pictures, send_through_vae
from inandout.stages.pools import Pool, open_pool
from inandout.stages.reviewed import kept, review_of
from inandout.stages.scores import log_scores
from inandout.tracking import WEIGHTS, connect, log_values, pip_requirements, run_stage, stage_fingerprint

SHOWN = 8
"""Pictures of each kind on a contact sheet."""

TEST_TAG = "inandout.test"
"""Fingerprint of the test part: classifiers that share it can be compared picture by picture."""


class FitConfig(BaseModel):
    """How a classifier is trained. The defaults are the embedded profile, which two CPU cores train in minutes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = Field("none", min_length=1, description="start: none, imagenet, or a .safetensors file")
    epochs: int = Field(10, ge=1, le=10_000, description="passes over the positives (paper: 50)")
    batch_size: int = Field(8, ge=2, le=4096, description="pictures a step (paper: 5)")
    optimiser: Optimiser = Field("adamw", description="sgd (paper) needs pretrained weights; adamw does not")
    lr: float = Field(0.001, gt=0, le=10, description="learning rate (paper: .01)")


class TrainingConfig(SourceConfig, Geometry, FitConfig):
    """What a classifier is trained and measured on."""

    n_aug: int = Field(60, ge=0, le=100_000, description="synthetic positives added to the training part (paper: 120)")
    val_fpr: float = Field(
        0.05, ge=0, lt=1, description="zero and few shot: share of validation negatives above the threshold"
    )
    negatives: Negatives = Field(
        "none",
        description="as many synthetic negatives as diffusion pictures, so that the generator's fingerprint does not "
        "tell the label: none (paper); roundtrip = real good parts through the base's VAE; generated = drawn good "
        "parts; no effect without diffusion pictures",
    )


class ClassifyConfig(TrainingConfig, ShotConfig, BaseConfig):
    """One classifier."""

    training_seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="seed of weights and order of pictures, but not of split and pools; none = seed",
    )
    ddpm_ratio: float = Field(0.0, ge=0, le=1, description="share of n_aug made by diffusion: 0 = MemSeg, .5 = In&Out")
    diffusion: Literal["ddpm", "inpaint"] = Field(
        "ddpm", description="how diffusion makes its share: whole pictures, or defects drawn on good parts"
    )
    alpha: float | None = Field(
        None, ge=0, le=1, description="LoRA merging weight of the diffusion pool; none = by base and shot"
    )
    guidance: float | None = Field(
        None, ge=1, le=50, description="weight of the prompt in the diffusion pool; none = by the base"
    )
    memseg_pool: str = Field("", description="folder or run id of a MemSeg pool; empty = as augment makes by default")
    ddpm_pool: str = Field("", description="folder or run id of a diffusion pool; empty = as augment makes by default")
    reviewed: bool = Field(
        False,
        description="take only pictures that reviewers kept from the pools that are given by ddpm_pool, memseg_pool",
    )
    fresh: bool = Field(False, description="run again although a finished run has the same fingerprint")

    @model_validator(mode="after")
    def _has_its_pool(self) -> "ClassifyConfig":
        if self.reviewed and not (self.ddpm_pool or self.memseg_pool):
            raise ValueError("reviewed = True is about given pools; give ddpm_pool or memseg_pool too")
        return self

    def own_seed(self) -> int:
        """The resolved `training_seed`."""
        return self.seed if self.training_seed is None else self.training_seed


class Result(NamedTuple):
    """A trained and measured classifier."""

    run_id: str
    metrics: dict[str, float]


class Part(NamedTuple):
    """Rows, and what the classifier sees of them."""

    samples: list[Sample]
    pixels: Pixels
    labels: Labels


def classify(config: ClassifyConfig) -> Result:
    """Train and measure, or find the run that did."""
    connect()
    real = prepare_shot(config)
    work = partial(_train_and_measure, config, real)
    run = run_stage("classify", run_name(config), config, _inputs(config, real), real, work)
    return Result(run.info.run_id, run.data.metrics)


def classify_fingerprint(config: ClassifyConfig) -> str:
    """Identity of what `classify` gives, told without training it."""
    return stage_fingerprint("classify", config, _inputs(config, prepare_shot(config)))


def _inputs(config: ClassifyConfig, real: Sequence[Sample]) -> dict[str, str]:
    return {"data": fingerprint(real)} | input_fingerprints(config)


def run_name(config: ClassifyConfig) -> str:
    """What a run is called in the UI."""
    return f"{config.shot} n_aug={config.n_aug} ddpm={config.ddpm_ratio:g} seed={config.own_seed()}"


def refuse_impossible(config: ClassifyConfig) -> None:
    """What `classify` would refuse of data, shot, weights or base, in seconds and before anything is trained."""
    real = prepare_shot(config)
    if config.n_aug == 0:
        mix(real, [], [], 0, 0.0)
    build_classifier(config.weights, config.own_seed())
    _diffusion_inputs(config)


def input_fingerprints(config: ClassifyConfig) -> dict[str, str]:
    """Content of everything else that is read: given pools and weights count by what is in them."""
    pools = [name for name in ("memseg_pool", "ddpm_pool") if getattr(config, name)]
    known = {name: fingerprint(_given(config, name)) for name in pools}
    weights = Path(config.weights)
    known |= {"weights": digest(weights)} if weights.is_file() else {}
    return known | _diffusion_inputs(config)


def _diffusion_inputs(config: ClassifyConfig) -> dict[str, str]:
    """What is drawn with; where nothing is drawn, neither base nor alpha count."""
    n_ddpm, base = share_out(config.n_aug, config.ddpm_ratio)[0], {"base": "", "base_config": ""}
    not_drawn = {"alpha": "", "diffusion": "", "guidance": ""}
    if not n_ddpm:
        return base | not_drawn | {"negatives": ""}
    if config.negatives == "generated":
        _good_drawing(config, n_ddpm)
    if config.negatives == "roundtrip" or not config.ddpm_pool:
        base = {"base": base_identity(config), "base_config": ""}
    return base | not_drawn if config.ddpm_pool else base


def _train_and_measure(config: ClassifyConfig, real: list[Sample], work: Path) -> None:
    val, test = load_part(_rows(real, "val"), config), load_part(_rows(real, "test"), config)
    model, val_logits = train_classifier(config, real, val, work)
    test_logits = predict(model, test.pixels)
    evaluation = evaluate(test_logits, test.labels, val_logits, val.labels, config.val_fpr, config.seed)
    log_values(evaluation.values)
    mlflow.set_tag("inandout.notes", " | ".join(evaluation.notes))
    log_scores([*val.samples, *test.samples], np.concatenate([val_logits, test_logits]))
    _log_pictures(config, test, test_logits, evaluation.values)
    _log_model(model, test.pixels)


def train_classifier(config: ClassifyConfig, real: list[Sample], val: Part, work: Path) -> tuple[DefectNet, Logits]:
    """Mix, train and log what was trained on, the curves with those of `val`, and how long it took.

    Returns:
        The classifier and its logits of `val`.
    """
    memseg, ddpm = _pools(config)
    negatives = _synthetic_negatives(config, ddpm)
    train = load_part(mix(real, memseg, ddpm, config.n_aug, config.ddpm_ratio, negatives), config)
    _log_inputs(config, real, train)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mlflow.set_tag("inandout.device", device)
    model = build_classifier(config.weights, config.own_seed()).to(device)
    started = time.monotonic()
    logits = _train(config, model, train, val, work)
    mlflow.log_metric("seconds_training", time.monotonic() - started)
    return model, predict(model, val.pixels) if logits is None else logits


def _pools(config: ClassifyConfig) -> tuple[list[Sample], list[Sample]]:
    """The (MemSeg, DDPM) pools, as far as the mix needs them."""
    n_ddpm, n_memseg = share_out(config.n_aug, config.ddpm_ratio)
    return _memseg_pool(config, n_memseg) if n_memseg else [], _ddpm_pool(config, n_ddpm) if n_ddpm else []


def _memseg_pool(config: ClassifyConfig, n: int) -> list[Sample]:
    return _usable(config, "memseg_pool", n) if config.memseg_pool else make_memseg_pool(config, n).samples


def make_memseg_pool(config: ClassifyConfig, n: int) -> Pool:
    """`n` MemSeg pictures as `augment` makes them by default, or the run that did."""
    shared = config.model_dump(include=set(MemSegPoolConfig.model_fields) - {"n_aug"})
    return augment_memseg(MemSegPoolConfig(n_aug=n, **shared))


def _ddpm_pool(config: ClassifyConfig, n: int) -> list[Sample]:
    return _usable(config, "ddpm_pool", n) if config.ddpm_pool else make_diffusion_pool(config, n).samples


def make_diffusion_pool(config: ClassifyConfig, n: int) -> Pool:
    """`n` diffusion pictures as `augment` makes them by default, or the run that did."""
    pool = diffusion_pool(config, n)
    return augment_inpaint(pool) if isinstance(pool, InpaintPoolConfig) else augment_ddpm(pool)


def diffusion_pool(config: ClassifyConfig, n: int) -> DdpmPoolConfig:
    """What `make_diffusion_pool` makes; an `InpaintPoolConfig` where defects are drawn on good parts."""
    shared = config.model_dump(include=set(DdpmPoolConfig.model_fields) - {"n_aug", "fresh"})
    kind = InpaintPoolConfig if config.diffusion == "inpaint" else DdpmPoolConfig
    return kind(n_aug=n, **shared)


def _synthetic_negatives(config: ClassifyConfig, ddpm: Sequence[Sample]) -> list[Sample]:
    """One to stand against each diffusion picture of the mix."""
    n = share_out(config.n_aug, config.ddpm_ratio)[0]
    if config.negatives == "none" or n == 0:
        return []
    if config.negatives == "generated":
        return good_pictures(_good_drawing(config, n)).samples
    shared = config.model_dump(include=set(RoundTripConfig.model_fields) - {"n_aug", "fresh"})
    return send_through_vae(RoundTripConfig(n_aug=n, **shared), ddpm[:n]).samples


def _good_drawing(config: ClassifyConfig, n: int) -> DdpmPoolConfig:
    if config.diffusion == "inpaint" and not config.ddpm_pool:
        raise InputError(
            "negatives = generated: defects are drawn on real good parts (diffusion = inpaint), and a whole picture is "
            "no good part against those; give negatives=roundtrip"
        )
    return good_drawing(diffusion_pool(config, n), config.ddpm_pool)


def _usable(config: ClassifyConfig, name: str, needed: int) -> list[Sample]:
    """The pictures of a given pool that may be trained with; with `reviewed` those that were kept, and it is logged."""
    if not config.reviewed:
        return _given(config, name)
    samples, pictures, decisions = review_of(open_pool(getattr(config, name)))
    summary = summarise(samples, pictures, decisions)
    mlflow.log_dict(summary, f"review_{name}.json")
    mlflow.log_params(
        {f"{name}_decided": sum(summary["together"].values()), f"{name}_kept": summary["together"]["keep"]}
    )
    mlflow.set_tag(f"inandout.reviewers_{name}", ", ".join(summary["reviewers"])[:500])
    return kept(name, getattr(config, name), samples, needed)


def _given(config: ClassifyConfig, name: str) -> list[Sample]:
    """A given pool; with `reviewed` what was decided on it is in its rows."""
    samples = open_pool(getattr(config, name))
    return review_of(samples)[0] if config.reviewed else samples


def _rows(samples: Sequence[Sample], split: str) -> list[Sample]:
    return [sample for sample in samples if sample.split == split]


def load_part(samples: Sequence[Sample], geometry: Geometry) -> Part:
    """Rows with their pictures, decoded and fitted."""
    pixels = load_pixels([sample.image for sample in samples], geometry)
    return Part(list(samples), pixels, np.array([sample.label for sample in samples], np.int64))


def _train(config: ClassifyConfig, model: DefectNet, train: Part, val: Part, work: Path) -> Logits | None:
    """The logits of `val` after the last epoch, if that had to know them."""
    logits: Logits | None = None

    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        nonlocal logits
        if "val_ap" not in values and 0 < val.labels.sum() < len(val.labels):
            logits = predict(model, val.pixels)
            values["val_ap"] = ranking(logits, val.labels)["ap"]
        log_values(values, step=epoch)

    checkpoint = work / "checkpoint.safetensors"
    mlflow.set_tag("inandout.resumed", checkpoint.exists())
    cure = np.array([sample.label == 0 and sample.origin != "real" for sample in train.samples])
    fit(
        model, train.pixels, train.labels, epochs=config.epochs, batch_size=config.batch_size, seed=config.own_seed(),
        optimiser=config.optimiser, lr=config.lr, always=cure, checkpoint=checkpoint, on_epoch=on_epoch,
    )  # fmt: skip
    return logits


def _log_inputs(config: ClassifyConfig, real: list[Sample], train: Part) -> None:
    """How many of what was trained on, what the geometry did to the defects, and what the mix looks like."""
    counts = Counter(f"n_{s.split}_{'positives' if s.label else 'negatives'}" for s in real if s.split != "train")
    counts += Counter(f"n_train_{s.origin}_{'positives' if s.label else 'negatives'}" for s in train.samples)
    mlflow.log_params(counts)
    mlflow.set_tags(
        {"inandout.survival": survival(real, config).sentence(), TEST_TAG: fingerprint(_rows(real, "test"))}
    )
    if alphas := sorted({sample.alpha for sample in train.samples if sample.alpha is not None}):
        mlflow.log_param("used_alpha", ", ".join(f"{alpha:g}" for alpha in alphas))
    kinds: dict[tuple[str, int], list[int]] = {}
    for i, sample in enumerate(train.samples):
        kinds.setdefault((sample.origin, sample.label), []).append(i)
    rng = np.random.default_rng(config.seed)
    shown = [int(i) for kind in sorted(kinds) for i in rng.permutation(kinds[kind])[:SHOWN]]
    captions = [_caption(train.samples[i]) for i in shown]
    mlflow.log_image(contact_sheet([train.pixels[i] for i in shown], captions, SHOWN), artifact_file="training_mix.png")


def _caption(sample: Sample) -> str:
    return f"{sample.origin} {sample.defect or ('positive' if sample.label else 'negative')}"


def _log_pictures(geometry: Geometry, test: Part, logits: Logits, values: dict[str, float]) -> None:
    """The PR curve with its operating points, and the worst mistakes: lowest positives, then highest negatives.

    Where a mask is known the defect is outlined.
    """
    if "ap" not in values:
        return
    names = {"honest threshold": "", "best F1 on test (oracle)": "oracle_"}
    points = {
        name: (values[f"{prefix}recall"], values[f"{prefix}precision"])
        for name, prefix in names.items()
        if f"{prefix}recall" in values
    }
    mlflow.log_figure(pr_curve(logits, test.labels, points), "pr_curve.png")
    order = np.argsort(logits)
    positives = [int(i) for i in order if test.labels[i] == 1][:SHOWN]
    negatives = [int(i) for i in order[::-1] if test.labels[i] == 0][:SHOWN]
    captions = [f"{logits[i]:+.1f} {_caption(test.samples[i])}" for i in positives + negatives]
    sheet = contact_sheet([marked(test, i, geometry) for i in positives + negatives], captions, SHOWN)
    mlflow.log_image(sheet, artifact_file="worst_mistakes.png")


def marked(part: Part, index: int, geometry: Geometry) -> Picture:
    """A picture with its defect outlined, where a mask is known."""
    mask = part.samples[index].mask
    return outline(part.pixels[index], fit_mask(read_mask(mask), geometry)) if mask else part.pixels[index]


def _log_model(model: DefectNet, pixels: Pixels) -> None:
    """The model for use, and its weights for everything else; no pickle."""
    model.eval().cpu().to(memory_format=torch.contiguous_format)
    _log_export(model, pixels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        save_file(model.resnet.state_dict(), path)
        mlflow.log_artifact(str(path))


def _log_export(model: DefectNet, pixels: Pixels) -> None:
    """As `pt2` with signature and example: any batch size, evaluation mode."""
    example = np.ascontiguousarray(pixels[:2].transpose(0, 3, 1, 2))
    mlflow.pytorch.log_model(model, name="model", input_example=example, pip_requirements=pip_requirements())
