"""Entry point `probe`: does a trained classifier find defects, or what the generator leaves in every picture?"""

from collections.abc import Sequence
from typing import NamedTuple

import mlflow
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from inandout.classifier.pixels import Pixels, load_pixels
from inandout.classifier.training import predict
from inandout.data.manifest import Sample, digest, fingerprint
from inandout.diffusion.base.base import Base, BaseConfig, base_identity, open_base
from inandout.errors import InputError
from inandout.evaluation.shortcut_probe import (
    FEWEST,
    Change,
    Reaction,
    amplified,
    changes,
    judge_both,
    react,
    reaction_table,
    sentence,
)
from inandout.mixing import share_out
from inandout.reporting.figures import contact_sheet, score_plot
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.trained_classifier import Eyes, open_eyes
from inandout.stages.pools.pool import open_pool
from inandout.tracking import artifact_folder, connect, experiment_url, find_run, log_values, run_stage

SHOWN = 6
"""Good parts on the contact sheet."""
GAIN = 16.0
"""How many times as large differences are shown."""
_THRESHOLD = "threshold"
"""Metric of `classify`: the honest one."""


class ProbeConfig(BaseModel):
    """Which classifier is asked, and about whose fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = Field("", description="run id of the classify whose classifier is tried")
    base: str = Field("", description="base whose VAE good parts are sent through; empty = that of the run")
    base_config: str = Field("", description="with a base that is one .safetensors file: as in classify")
    fresh: bool = Field(False, description="run again although a finished run has the same fingerprint")


class ProbedConfig(ProbeConfig):
    """The same with what the classifier's run says."""

    data: str


class Probed(NamedTuple):
    """What came out: the run holds the same numbers as metrics."""

    run_id: str
    table: str
    sentence: str


def probe(config: ProbeConfig) -> Probed:
    """Send real good parts through what generators do, without a defect, and see whether they are called defects.

    They are the negatives of the validation and test parts, which the classifier was not trained on. Prints and logs a
    table and one sentence; nothing is chosen by it.
    """
    connect()
    eyes = open_eyes("run", config.run)
    good = [*eyes.rows("val", 0), *eyes.rows("test", 0)]
    if len(good) < FEWEST:
        raise InputError(
            f"run = {config.run}: its validation and test parts have {len(good)} negatives; the probe needs {FEWEST} "
            "or more, so raise val_share or test_share"
        )
    base = _base_config(config, eyes.config)
    threshold = find_run(config.run).data.metrics.get(_THRESHOLD)
    inputs = {
        "data": fingerprint(eyes.real), "run": digest(eyes.weights), "threshold": repr(threshold),
        "base": base_identity(base), "base_config": "",
    }  # fmt: skip
    probed = ProbedConfig(**config.model_dump(), data=eyes.config.data)
    name = f"probe of {config.run[:8]}"
    run = run_stage("probe", name, probed, inputs, good, lambda work: _probe(eyes, good, base, threshold))
    text = artifact_folder(run.info.run_id, "probe.md").read_text(encoding="utf-8")
    table, answer = text.split("\n\n")[1:3]
    print(f"\n{text}\n\n{experiment_url(run)}")
    return Probed(run.info.run_id, table, answer)


def _base_config(config: ProbeConfig, trained: ClassifyConfig) -> BaseConfig:
    asked = config if config.base else trained
    return BaseConfig(base=asked.base, base_config=asked.base_config)


def _probe(eyes: Eyes, good: Sequence[Sample], base_config: BaseConfig, threshold: float | None) -> None:
    """Log table, metrics, contact sheet and plot."""
    base = open_base(base_config)
    _refuse_other_base(eyes.config, base, base_config.base)
    net, pixels = eyes.net(), load_pixels([sample.image for sample in good], eyes.config)
    parts = [sample.group for sample in good]
    tried = changes(base.pipeline, f"base {base_config.base.rsplit('/', 1)[-1]}")
    reactions = [
        react(change, judge_both(lambda batch: predict(net, batch), pixels, change, parts), threshold, eyes.config.seed)
        for change in tried
    ]
    _log(eyes.config, reactions)
    mlflow.log_image(_sheet(pixels, reactions), artifact_file="probe.png")
    real = [*eyes.rows("val", 1), *eyes.rows("test", 1)]
    groups = {"good parts, untouched": reactions[0].judged.before}
    groups |= {f"good parts, {one.change.name}": one.judged.after for one in reactions}
    if real:
        groups["real defects"] = predict(net, load_pixels([sample.image for sample in real], eyes.config))
    mlflow.log_figure(score_plot(groups, threshold), "scores.png")


def _refuse_other_base(trained: ClassifyConfig, base: Base, name: str) -> None:
    """A pool that was given may be of another base than the classifier's options say."""
    if not trained.ddpm_pool or not share_out(trained.n_aug, trained.ddpm_ratio)[0]:
        return
    drawn = {sample.base for sample in open_pool(trained.ddpm_pool)} - {""}
    if drawn and base.fingerprint not in drawn:
        raise InputError(
            f"base = {name}: the diffusion pictures of pool {trained.ddpm_pool} were drawn with another one; give "
            "base=<that one>"
        )


def _log(trained: ClassifyConfig, reactions: Sequence[Reaction]) -> None:
    for one in reactions:
        values = {f"auroc_{one.change.key}{end}": v for end, v in zip(("", "_low", "_high"), one.auroc, strict=True)}
        values |= {f"rise_{one.change.key}{end}": v for end, v in zip(("", "_low", "_high"), one.rise, strict=True)}
        values |= {f"levels_{one.change.key}": one.judged.levels}
        if one.called is not None:
            values |= {"called_untouched": one.called[0], f"called_{one.change.key}": one.called[1]}
        log_values(values)
    count = len(reactions[0].judged.before)
    mlflow.log_param("n_good_parts", count)
    mlflow.set_tag("inandout.answer", sentence(reactions))
    title = f"{count} real good parts of the validation and test parts; {_trained_on(trained)}:"
    mlflow.log_text("\n\n".join([title, reaction_table(reactions), sentence(reactions)]), "probe.md")


def _trained_on(trained: ClassifyConfig) -> str:
    n_ddpm, n_memseg = share_out(trained.n_aug, trained.ddpm_ratio)
    return f"the classifier was trained with {n_ddpm} diffusion and {n_memseg} MemSeg positives"


def _sheet(pixels: Pixels, reactions: Sequence[Reaction]) -> Pixels:
    """A row a good part, some spread over all: untouched, then after each change beside the difference."""
    chosen = np.unique(np.linspace(0, len(pixels) - 1, SHOWN).astype(int))
    pictures, captions = [], []
    for index in chosen:
        pictures.append(pixels[index])
        captions.append(f"untouched {reactions[0].judged.before[index]:+.1f}")
        for one in reactions:
            after = _changed(one.change, pixels, int(index))
            pictures += [after, amplified(pixels[index], after, GAIN)]
            captions += [f"{one.change.name} {one.judged.after[index]:+.1f}", f"difference x {GAIN:g}"]
    return contact_sheet(pictures, captions, 1 + 2 * len(reactions))


def _changed(change: Change, pixels: Pixels, index: int) -> Pixels:
    return change.apply(pixels[index : index + 1])[0]
