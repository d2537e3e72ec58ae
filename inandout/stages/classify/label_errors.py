"""Entry point `label-errors`: rank the labels of a dataset by the out-of-fold loss of classifiers."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
from sklearn.metrics import average_precision_score

from inandout.classifier.backbone import build_classifier
from inandout.classifier.label_losses import label_losses
from inandout.classifier.training import Logits, fit, predict
from inandout.data.manifest import Sample, fingerprint
from inandout.data.prepare import prepare
from inandout.data.splits import assign_folds
from inandout.data.text import to_cell, write_text
from inandout.fingerprints import Identity
from inandout.reporting.figures import contact_sheet
from inandout.stages.classify.config import LabelErrorsConfig
from inandout.stages.classify.mask_targets import mask_targets
from inandout.stages.classify.part import Part, load_part, outlined
from inandout.stages.classify.suspects import SUSPECTS, Suspect, read_suspects
from inandout.tracking.logging import log_values
from inandout.tracking.runs import WEIGHTS_TAG, run_stage
from inandout.tracking.store import connect

N_SHOWN = 32
"""Images on the contact sheet."""


def find_label_errors(config: LabelErrorsConfig) -> str:
    """Score every training and validation label out of fold; return the id of the run.

    The test part is excluded, so that no classifier influences the labels that results are measured on.
    """
    connect()
    samples = prepare(config.data, config.seed)
    checked = [sample for sample in samples if sample.split != "test"]
    inputs = {"data": fingerprint(samples)} | config.backbone.inputs()
    identity = Identity("labels", __name__, config, inputs, ignored=inputs.keys())
    name = f"label-errors of {len(checked)} images, {config.folds} folds, seed={config.seed:02d}"
    run = run_stage(identity, name, config.data.data, samples, lambda work: _judge(config, checked, work))
    suspects = read_suspects(run.info.run_id)
    print(
        f"{sum(suspect.contrary for suspect in suspects)} of {len(suspects)} labels contradict the out-of-fold "
        f"prediction; review them with `python -m inandout review --pool {run.info.run_id}`"
    )
    return str(run.info.run_id)


def _judge(config: LabelErrorsConfig, checked: Sequence[Sample], work: Path) -> None:
    mlflow.set_tag(WEIGHTS_TAG, config.backbone.weights_identity())
    part = load_part(checked, config.geometry)
    groups = [sample.group or f"#{number}" for number, sample in enumerate(checked)]
    logits = np.zeros(len(checked))
    for number, fold in enumerate(assign_folds(part.labels, groups, config.folds, config.seed), start=1):
        print(f"label-errors: fold {number} of {config.folds}", file=sys.stderr)
        logits[fold] = _fold_logits(config, part, fold, work / f"fold-{number}")
    _log(config, part, logits)


def _fold_logits(config: LabelErrorsConfig, part: Part, fold: np.ndarray, file: Path) -> Logits:
    """Return the logits of one fold. A file keeps them, so that a killed run resumes with the next fold."""
    kept, checkpoint = file.with_suffix(".json"), file.with_suffix(".safetensors")
    if not kept.exists():
        hardware = config.hardware.open()
        model = build_classifier(config.backbone, config.seed).to(hardware.device)
        others = np.setdiff1d(np.arange(len(part.labels)), fold)
        train = part.take(others.tolist())
        fit(
            model, train.pixels, train.labels, config.fit, seed=config.seed,
            masks=mask_targets(model, train, config.geometry), checkpoint=checkpoint, precision=hardware.precision,
        )  # fmt: skip
        logits = predict(model, part.pixels[fold], precision=hardware.precision)
        write_text(kept, json.dumps(logits.tolist()))
        checkpoint.unlink()
    return np.array(json.loads(kept.read_text(encoding="utf-8")))


def _log(config: LabelErrorsConfig, part: Part, logits: Logits) -> None:
    loss = label_losses(logits, part.labels)
    order = np.argsort(-loss, kind="stable")
    suspects = [Suspect(part.samples[i], float(logits[i]), float(loss[i])) for i in order]
    mlflow.log_text(_table(suspects), SUSPECTS)
    images = [outlined(part, int(i), config.geometry) for i in order[:N_SHOWN]]
    mlflow.log_image(
        contact_sheet(images, [_caption(suspect) for suspect in suspects[:N_SHOWN]]), artifact_file="labels.png"
    )
    log_values(
        {
            "labels": float(len(suspects)), "labels_contrary": float(sum(suspect.contrary for suspect in suspects)),
            "out_of_fold_ap": float(average_precision_score(part.labels, logits)), "mean_loss": float(loss.mean()),
        }
    )  # fmt: skip


def _table(suspects: Sequence[Suspect]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["rank", "image", "label", "defect", "split", "logit", "loss", "contrary"])
    for rank, suspect in enumerate(suspects, start=1):
        row = suspect.sample
        values = [repr(suspect.logit), repr(suspect.loss), int(suspect.contrary)]
        writer.writerow([rank, row.image, row.label, to_cell(row.defect), row.split, *values])
    return text.getvalue()


def _caption(suspect: Suspect) -> str:
    label = "defect" if suspect.sample.label else "good"
    return f"labelled {label}, {suspect.chance:.0%} defect"
