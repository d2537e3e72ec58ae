"""Entry point `probe-shortcut`: test whether a classifier detects defects or artifacts of the generator."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import mlflow
import numpy as np

from inandout.classifier.head_combination import score_heads
from inandout.classifier.pixels import Pixels, load_pixels
from inandout.classifier.training import predict
from inandout.data.manifest import Sample, digest, fingerprint
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.base.identity import base_identity
from inandout.errors import InputError
from inandout.evaluation.shortcut_probe import (
    FEWEST,
    SEAM,
    Perturbation,
    PerturbationEffect,
    amplified,
    measure_effect,
    measure_responses,
    perturbations,
)
from inandout.fingerprints import Identity
from inandout.reporting.figures import contact_sheet, score_plot
from inandout.reporting.shortcut_report import conclusion, effect_table
from inandout.stages.analysis.config import ProbeShortcutConfig
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.trained_classifier import TrainedClassifier
from inandout.stages.pools.pool import open_pool
from inandout.tracking.logging import describe_location, log_values
from inandout.tracking.runs import artifact_folder, run_stage
from inandout.tracking.store import connect

if TYPE_CHECKING:
    from inandout.diffusion.base.base import Base

N_SHOWN = 6
"""Number of good parts on the contact sheet."""
GAIN = 16.0
"""Amplification of differences on the contact sheet."""


class Probed(NamedTuple):
    """Result of the probe; the run has the same values as metrics."""

    run_id: str
    table: str
    sentence: str


def probe_shortcut(config: ProbeShortcutConfig) -> Probed:
    """Apply the side effects of generators to real good parts, and test whether the classifier calls them defects.

    The good parts are the negatives of the validation and test parts, which the classifier was not trained on. The
    results are printed and logged as a table and a sentence.
    """
    connect()
    trained = TrainedClassifier.open(config.run)
    good = [*trained.rows("val", 0), *trained.rows("test", 0)]
    if len(good) < FEWEST:
        raise InputError(
            f"run = {config.run}: its validation and test parts have {len(good)} negatives; the probe needs at "
            f"least {FEWEST}; raise val_share or test_share"
        )
    base = _base_config(config, trained.config)
    threshold = trained.threshold
    inputs = {
        "data": fingerprint(trained.data), "run": digest(trained.weights), "threshold": repr(threshold),
        "base": base_identity(base),
    }  # fmt: skip
    identity = Identity("probe", __name__, config, inputs, ignored=("run", "base", "base_config"))
    name = f"probe of {config.run[:8]}"
    run = run_stage(identity, name, trained.config.data.data, good, lambda work: _probe(trained, good, base, threshold))
    text = artifact_folder(run.info.run_id, "probe.md").read_text(encoding="utf-8")
    table, answer = text.split("\n\n")[1:3]
    print(f"\n{text}\n\n{describe_location(run)}")
    return Probed(run.info.run_id, table, answer)


def _base_config(config: ProbeShortcutConfig, trained: ClassifyConfig) -> BaseConfig:
    return BaseConfig(base=config.base, base_config=config.base_config) if config.base else trained.base


def _probe(
    trained: TrainedClassifier, good: Sequence[Sample], base_config: BaseConfig, threshold: float | None
) -> None:
    """Log table, metrics, contact sheet and plot."""
    from inandout.diffusion.base.base import open_base

    base = open_base(base_config)
    _refuse_other_base(trained.config, base, base_config.base)
    net, pixels = trained.load_fastest(), load_pixels([sample.image for sample in good], trained.geometry)
    parts, seed = [sample.group for sample in good], trained.config.seed
    perturbed = perturbations(base.pipeline, f"base {base_config.base.rsplit('/', 1)[-1]}")
    effects = [
        measure_effect(each, measure_responses(lambda batch: predict(net, batch), pixels, each, parts), threshold, seed)
        for each in perturbed
    ]
    _log(trained.config, effects)
    if net.mask_head:
        of_map = [
            measure_effect(
                each, measure_responses(lambda batch: score_heads(net, batch)[1], pixels, each, parts), None, seed
            )
            for each in [*perturbed, SEAM]
        ]
        _log_maps(of_map)
    mlflow.log_image(_sheet(pixels, effects), artifact_file="probe.png")
    real = [*trained.rows("val", 1), *trained.rows("test", 1)]
    groups = {"good parts, untouched": effects[0].responses.before}
    groups |= {f"good parts, {effect.perturbation.name}": effect.responses.after for effect in effects}
    if real:
        groups["real defects"] = predict(net, load_pixels([sample.image for sample in real], trained.geometry))
    mlflow.log_figure(score_plot(groups, threshold), "scores.png")


def _refuse_other_base(trained: ClassifyConfig, base: "Base", name: str) -> None:
    """Raise InputError if another base drew the classifier's `ddpm_pool`."""
    if not trained.ddpm_pool or not trained.shares()[0]:
        return
    bases = {sample.base for sample in open_pool(trained.ddpm_pool).samples} - {""}
    if bases and base.fingerprint not in bases:
        raise InputError(
            f"base = {name}: another base drew the diffusion images of pool {trained.ddpm_pool}; give base=<that base>"
        )


def _log(trained: ClassifyConfig, effects: Sequence[PerturbationEffect]) -> None:
    for effect in effects:
        key = effect.perturbation.key
        values = {f"auroc_{key}{end}": v for end, v in zip(("", "_low", "_high"), effect.auroc, strict=True)}
        values |= {f"rise_{key}{end}": v for end, v in zip(("", "_low", "_high"), effect.rise, strict=True)}
        values |= {f"levels_{key}": effect.responses.levels}
        if effect.called is not None:
            values |= {"called_untouched": effect.called[0], f"called_{key}": effect.called[1]}
        log_values(values)
    count = len(effects[0].responses.before)
    mlflow.log_param("n_good_parts", count)
    mlflow.set_tag("inandout.answer", conclusion(effects))
    title = f"{count} real good parts of the validation and test parts; {_trained_on(trained)}:"
    mlflow.log_text("\n\n".join([title, effect_table(effects), conclusion(effects)]), "probe.md")


def _log_maps(effects: Sequence[PerturbationEffect]) -> None:
    """Log how the highest logit of the map of a mask head changes."""
    for effect in effects:
        values = zip(("", "_low", "_high"), effect.auroc, strict=True)
        log_values({f"map_auroc_{effect.perturbation.key}{end}": value for end, value in values})
    mlflow.log_text(f"Highest logit of the map of the same good parts:\n\n{effect_table(effects)}\n", "probe_maps.md")


def _trained_on(trained: ClassifyConfig) -> str:
    n_ddpm, n_memseg = trained.shares()
    return f"the classifier was trained with {n_ddpm} diffusion and {n_memseg} MemSeg positives"


def _sheet(pixels: Pixels, effects: Sequence[PerturbationEffect]) -> Pixels:
    """Return a contact sheet with one row per good part: unchanged, then each perturbation with its difference."""
    chosen = np.unique(np.linspace(0, len(pixels) - 1, N_SHOWN).astype(int))
    images, captions = [], []
    for index in chosen:
        images.append(pixels[index])
        captions.append(f"untouched {effects[0].responses.before[index]:+.1f}")
        for effect in effects:
            after = _perturb(effect.perturbation, pixels, int(index))
            images += [after, amplified(pixels[index], after, GAIN)]
            captions += [f"{effect.perturbation.name} {effect.responses.after[index]:+.1f}", f"difference x {GAIN:g}"]
    return contact_sheet(images, captions, 1 + 2 * len(effects))


def _perturb(perturbation: Perturbation, pixels: Pixels, index: int) -> Pixels:
    return perturbation.apply(pixels[index : index + 1])[0]
